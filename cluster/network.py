"""The node's network: a namespace of its own and one veth pair to the machine, so that nothing else is touched.

Each cluster gets the n-th /30 of 10.123.0.0/16 (and a /64 of a private IPv6 prefix) for that pair. Pod and Service
ranges live inside the namespace and may be the same in every cluster.
"""

import json
import subprocess
from collections.abc import Collection
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Final, Self

from cluster.errors import NameTakenError, StartError
from cluster.layout import Cache, RunFolder

LINKS: Final = IPv4Network("10.123.0.0/16")
LINKS_V6: Final = IPv6Network("fd7a:7475:6c73::/48")
PODS: Final = "10.244.0.0/16"
PODS_V6: Final = "fd00:10:244::/64"
SERVICES: Final = "10.96.0.0/16"
SERVICES_V6: Final = "fd00:10:96::/112"
DNS: Final = "10.96.0.10"
_NETNS: Final = Path("/run/netns")


@dataclass(frozen=True, slots=True)
class Link:
    """The n-th pair of addresses between the machine and a node."""

    index: int
    ipv6: bool

    @property
    def _subnet(self) -> IPv4Network:
        return IPv4Network((int(LINKS.network_address) + 4 * self.index, 30))

    @property
    def _subnet_v6(self) -> IPv6Network:
        return IPv6Network((int(LINKS_V6.network_address) + (self.index << 64), 64))

    @property
    def host(self) -> IPv4Address:
        return self._subnet[1]

    @property
    def node(self) -> IPv4Address:
        return self._subnet[2]

    @property
    def host_v6(self) -> IPv6Address:
        return self._subnet_v6[1]

    @property
    def node_v6(self) -> IPv6Address:
        return self._subnet_v6[2]

    @property
    def device(self) -> str:
        """The machine's end of the pair."""
        return f"autotls{self.index}"

    @property
    def node_addresses(self) -> tuple[str, ...]:
        """IPv4 first: the order makes it the primary family."""
        return (str(self.node), str(self.node_v6)) if self.ipv6 else (str(self.node),)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What link.json says: which namespace is ours. An inode number names a namespace until the machine restarts."""

    index: int
    ipv6: bool
    inode: int
    boot: str

    @classmethod
    def read(cls, path: Path) -> Self | None:
        try:
            return cls(**json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None


def choose_index(taken: Collection[int]) -> int:
    """The lowest free index. Raises StartError when all are used."""
    for index in range(LINKS.num_addresses // 4):
        if index not in taken:
            return index
    raise StartError("all subnets for clusters on this machine are used", hint="end a cluster: CLUSTER=name make down")


def boot_id() -> str:
    """Changes with every start of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def owns_namespace(folder: RunFolder) -> bool:
    """Whether the namespace of that name exists and was made for this very folder."""
    recorded = Recorded.read(folder.link)
    try:
        inode = (_NETNS / folder.netns).stat().st_ino
    except FileNotFoundError:
        return False
    return recorded is not None and recorded.inode == inode and recorded.boot == boot_id()


def create(cache: Cache, folder: RunFolder) -> Link:
    """Make the namespace and its link to the machine, and record them in `link.json`.

    Raises NameTakenError when a namespace of that name exists already, StartError when the kernel refuses.
    """
    if (_NETNS / folder.netns).exists():
        raise NameTakenError(
            f"a network namespace {folder.netns} exists that this cluster did not make",
            hint="use another name (CLUSTER=name make up) or end the cluster that owns it",
        )
    link = Link(_free_index(cache, folder), ipv6=_has_ipv6())
    _run("ip", "netns", "add", folder.netns)
    inode = (_NETNS / folder.netns).stat().st_ino
    record = Recorded(link.index, link.ipv6, inode, boot_id())
    folder.link.write_text(json.dumps(asdict(record)))
    _connect(folder, link)
    return link


def current(folder: RunFolder) -> Link | None:
    """The link of a cluster whose namespace exists."""
    recorded = Recorded.read(folder.link)
    if recorded is None or not owns_namespace(folder):
        return None
    return Link(recorded.index, recorded.ipv6)


def destroy(folder: RunFolder) -> None:
    """Remove the namespace, with it both ends of the link and all rules and devices in it. Only if it is ours."""
    link = current(folder)
    if link is not None:
        # Apart, because the kernel empties a deleted namespace in its own time: the device would still be seen here.
        if Path("/sys/class/net", link.device).exists():
            _run("ip", "link", "delete", link.device)
        _run("ip", "netns", "delete", folder.netns)
    folder.link.unlink(missing_ok=True)


def pids(folder: RunFolder) -> tuple[int, ...]:
    """Every process in our namespace."""
    if not owns_namespace(folder):
        return ()
    return tuple(int(pid) for pid in _run("ip", "netns", "pids", folder.netns).split())


def _has_ipv6() -> bool:
    """False when the kernel was built or started without IPv6, or an administrator switched it off."""
    switch = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
    return switch.exists() and switch.read_text().strip() == "0"


def _free_index(cache: Cache, folder: RunFolder) -> int:
    """Not used by another cluster of this cache, nor by any address on the machine (another cache's cluster)."""
    taken: set[int] = set()
    for path in cache.clusters.glob("*/link.json"):
        recorded = Recorded.read(path)
        if recorded is not None and recorded.boot == boot_id() and path != folder.link:
            taken.add(recorded.index)
    for device in json.loads(_run("ip", "-j", "-4", "address", "show")):
        for address in device.get("addr_info", []):
            local = IPv4Address(address["local"])
            if local in LINKS:
                taken.add((int(local) - int(LINKS.network_address)) // 4)
    return choose_index(taken)


def _connect(folder: RunFolder, link: Link) -> None:
    inside = ("ip", "-n", folder.netns)
    _run("ip", "link", "add", link.device, "type", "veth", "peer", "name", "uplink", "netns", folder.netns)
    _run("ip", "address", "add", f"{link.host}/30", "dev", link.device)
    _run(*inside, "address", "add", f"{link.node}/30", "dev", "uplink")
    if link.ipv6:
        # nodad: nobody else is on this wire, and an address is unusable for a second or two while it is checked.
        _run("ip", "address", "add", f"{link.host_v6}/64", "dev", link.device, "nodad")
        _run(*inside, "address", "add", f"{link.node_v6}/64", "dev", "uplink", "nodad")
    _run("ip", "link", "set", link.device, "up")
    _run(*inside, "link", "set", "uplink", "up")
    _run(*inside, "link", "set", "lo", "up")
    # The API server and the kubelet find "the node's address" by asking for the default route.
    _run(*inside, "route", "add", "default", "via", str(link.host))
    if link.ipv6:
        _run(*inside, "-6", "route", "add", "default", "via", str(link.host_v6))
    enter = ("nsenter", f"--net={_NETNS / folder.netns}")
    _run(*enter, "sysctl", "-qw", *_sysctls(ipv6=link.ipv6))
    # What leaves the node comes from the node's address: the machine knows no route to the pods.
    families = "inet" if link.ipv6 else "ip"
    _run(
        *enter,
        "nft",
        f"table {families} autotls_uplink {{ chain out {{ type nat hook postrouting priority srcnat; "
        'oifname "uplink" masquerade; }; }',
    )


def _sysctls(*, ipv6: bool) -> tuple[str, ...]:
    settings = ["net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"]
    # Two pods on one bridge talk past the IP layer unless bridged packets pass the rules too; then the answer of a
    # Service's pod would come from the pod's address and be refused.
    settings.append("net.bridge.bridge-nf-call-iptables=1")
    if ipv6:
        settings += ["net.ipv6.conf.all.forwarding=1", "net.ipv6.conf.default.accept_dad=0"]
        settings.append("net.bridge.bridge-nf-call-ip6tables=1")
    return tuple(settings)


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StartError(
            f"`{' '.join(argv[:4])} …` failed: {done.stderr.strip()}",
            hint="the node needs network namespaces, veth, bridges with netfilter and nftables from the kernel",
        )
    return done.stdout
