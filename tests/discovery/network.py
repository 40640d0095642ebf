"""Pods behind a router: network namespaces with routed addresses, Services simulated by the router's DNAT.

The router stands for node and kube-proxy. Discovery listens on the router's own address, so it sees the pods' own.
"""

from __future__ import annotations

import contextlib
import ctypes
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.proxy.namespaces import Network

ROUTER = "10.210.0.1"
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_GATEWAY = "169.254.1.1"


def enter(namespace: str) -> None:
    """The calling thread's sockets are in that network from now on."""
    with Path(f"/var/run/netns/{namespace}").open("rb") as handle:
        if _LIBC.setns(handle.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {namespace}")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Router:
    """Makes pods' networks; `service` makes or changes a ClusterIP."""

    def __init__(self) -> None:
        self._tag = secrets.token_hex(3)
        self.network = Network(f"autotls-{self._tag}-r", ROUTER, "")
        self._pods: list[Network] = []
        self._services: dict[tuple[str, int], list[str]] = {}
        _ip("netns", "add", self.network.namespace)
        for name in ("net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"):
            self.network.run("sysctl", "-qw", name)
        _ip("-n", self.network.namespace, "link", "set", "lo", "up")
        _ip("-n", self.network.namespace, "addr", "add", f"{ROUTER}/32", "dev", "lo")

    def pod(self) -> Network:
        number = len(self._pods) + 1
        network = Network(f"autotls-{self._tag}-{number}", f"10.210.1.{number}", "")
        link, router = f"pod{number}", self.network.namespace
        _ip("netns", "add", network.namespace)
        self._pods.append(network)
        _ip("-n", router, "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", network.namespace)
        _ip("-n", router, "addr", "add", f"{_GATEWAY}/32", "dev", link)
        _ip("-n", router, "link", "set", link, "up")
        _ip("-n", network.namespace, "link", "set", "lo", "up")
        _ip("-n", network.namespace, "addr", "add", f"{network.ipv4}/32", "dev", "eth0")
        _ip("-n", network.namespace, "link", "set", "eth0", "up")
        _ip("-n", network.namespace, "route", "add", _GATEWAY, "dev", "eth0")
        _ip("-n", network.namespace, "route", "add", "default", "via", _GATEWAY, "dev", "eth0")
        _ip("-n", router, "route", "add", f"{network.ipv4}/32", "dev", link)
        return network

    def service(self, address: str, port: int, *endpoints: str) -> None:
        """Connections to `address`:`port` go to one of `endpoints` (`address:port`)."""
        self._services[address, port] = list(endpoints)
        rules = []
        for (virtual, number), targets in self._services.items():
            if not targets:
                rules.append(f"ip daddr {virtual} tcp dport {number} reject with tcp reset")
                continue
            choices = ", ".join(f"{i} : {t.replace(':', ' . ')}" for i, t in enumerate(targets))
            rules.append(
                f"ip daddr {virtual} tcp dport {number} dnat ip to numgen inc mod {len(targets)} map {{ {choices} }}"
            )
        text = "\n".join(
            [
                "table ip services {}",
                "delete table ip services",
                "table ip services {",
                "chain nat { type nat hook prerouting priority dstnat;",
                *[rule for rule in rules if "dnat" in rule],
                "}",
                "}",
            ]
        )
        subprocess.run(
            ["ip", "netns", "exec", self.network.namespace, "nft", "-f", "-"], input=text, text=True, check=True
        )

    def close(self) -> None:
        for network in [*self._pods, self.network]:
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "del", network.namespace)


@contextlib.contextmanager
def routed() -> Iterator[Router]:
    router = Router()
    try:
        yield router
    finally:
        router.close()
