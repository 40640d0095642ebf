"""A Service of every kind of protocol with meshed pods behind it, a meshed client, and the same without a mesh."""

import json
import secrets
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mesh import names
from tests.cluster.kubectl import OPTED_IN, Object, Space, eventually, is_ready, manifest, space, tell
from tests.cluster.machine import Machine, Series
from tests.cluster.plane import Plane
from tests.fixtures_cluster import RunningCluster

# A test run that is killed must not leave what it started behind.
_DIE_WITH_US: Final = ("setpriv", "--pdeathsig", "KILL")
PACER: Final = Path(__file__).with_name("pacer.py")
COUNTER: Final = "envoy_autotls_rq"


@dataclass(frozen=True, slots=True)
class Meshed:
    """`home` opted in, `outside` did not; both hold Deployment and Service `web`, Service `headless`, Pod `client`."""

    home: Space
    outside: Space
    machine: Machine

    def client(self, where: Space | None = None) -> Object:
        return (where or self.home).get("pod", "client")

    def servers(self, where: Space | None = None) -> list[Object]:
        return (where or self.home).pods("app=web")

    def address(self, where: Space | None = None) -> str:
        """The Service's ClusterIP."""
        return (where or self.home).get("service", "web")["spec"]["clusterIP"]

    def identity(self, account: str) -> str:
        return f"spiffe://cluster.local/ns/{self.home.name}/sa/{account}"

    def metric(self, pod: Object, name: str, **labels: str) -> float:
        return self.machine.metric(pod["status"]["podIP"], names.STATUS_PORT, name, **labels)

    def outbound(self, **labels: str) -> float:
        """What the client's proxy counted."""
        return self.metric(self.client(), COUNTER, dir="outbound", **labels)

    def untried(self) -> Series:
        """Connections and requests of the client that nobody tried to make by TLS, series by series (see `growth`).

        A handshake that takes longer than a second falls back (`tls_failed`): on a busy machine that says nothing.
        """
        address = self.client()["status"]["podIP"]
        found = self.machine.series(address, names.STATUS_PORT, COUNTER, dir="outbound", tls="")
        return {name: value for name, value in found.items() if 'reason="tls_failed"' not in name}

    def inbound(self, **labels: str) -> float:
        """What the servers' proxies counted."""
        return sum(self.metric(pod, COUNTER, dir="inbound", **labels) for pod in self.servers())

    def run(self, script: str, where: Space | None = None) -> str:
        """What a shell in the client's application container prints. Fails the test when it fails."""
        return (where or self.home).exec("client", "sh", "-ec", script, container="app")

    def enter(self, pod: Object) -> tuple[str, ...]:
        """Command prefix that runs in the pod's network, as the application would."""
        return ("nsenter", f"--net=/proc/{self.machine.process_of(pod, 'app')}/ns/net")

    def wait_configured(self) -> None:
        """Several requests in a row went by mutual TLS, as the proxies of both sides say: each of them has its identity
        and its configuration. Nobody else may be asking."""
        script = f"for i in 1 2 3 4; do curl --silent --fail --max-time 120 http://{self.address()}/; done"

        def counts() -> tuple[float, float, float]:
            return (
                self.outbound(tls=""),
                self.outbound(tls="TLSv1.2", peer=self.identity("web")),
                self.inbound(tls="TLSv1.2", peer=self.identity("client")),
            )

        def all_by_tls() -> bool:
            plain, sent, received = counts()
            self.run(script)
            return counts() == (plain, sent + 4, received + 4)

        eventually(all_by_tls, "four requests by mutual TLS")


@contextmanager
def meshed_pods(cluster: RunningCluster) -> Generator[Meshed]:
    Plane(cluster).wait_healthy()
    with ExitStack() as stack:
        home = stack.enter_context(space(cluster, "meshed", labels=OPTED_IN))
        outside = stack.enter_context(space(cluster, "unmeshed"))
        found = Meshed(home, outside, Machine(cluster))
        accounts = [each for each in manifest(cluster, "mutual-tls") if each["kind"] == "ServiceAccount"]
        home.apply(*accounts)
        for account in ("web", "client"):
            name = names.identity_secret_name(account)
            eventually(lambda name=name: home.find("secret", name), f"Secret {name}")
        for each in (home, outside):
            each.apply(*manifest(cluster, "mutual-tls"))
        for each in (home, outside):
            wait_rolled_out(each, "web")
            each.wait_ready("client")
        found.wait_configured()
        yield found


def wait_rolled_out(where: Space, name: str) -> None:
    """Every replica is of the newest template and Ready, and none of an older one is left."""

    def done() -> bool:
        found = where.get("deployment", name)
        status, wanted = found.get("status", {}), found["spec"]["replicas"]
        current = status.get("observedGeneration") == found["metadata"]["generation"]
        counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")]
        return current and counts == [wanted] * 3 and all(map(is_ready, where.pods(f"app={name}")))

    eventually(done, lambda: f"{name} rolled out: {[tell(pod) for pod in where.pods()]}")


@contextmanager
def _ended(process: "subprocess.Popen[str]") -> Generator["subprocess.Popen[str]"]:
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=30)


@dataclass(frozen=True, slots=True)
class Load:
    """Requests at a steady rate, and what became of each."""

    lines: Path

    def answers(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def more(self, count: int) -> None:
        """Returns when so many more requests have ended than now."""
        before = len(self.answers())
        eventually(lambda: len(self.answers()) >= before + count, f"{count} more requests")

    def failures(self) -> list[dict[str, Any]]:
        return [answer for answer in self.answers() if answer.get("status") != 200]

    @property
    def slowest_ms(self) -> float:
        return max((answer["ms"] for answer in self.answers()), default=0.0)


@contextmanager
def pacing(
    enter: Sequence[str], address: str, port: int, lines: Path, *, rate: int = 25, further: Sequence[str] = ()
) -> Generator[Load]:
    """Requests from the network that `enter` leads to, until the block ends; `further` kinds: see `pacer.py`."""
    lines.touch()
    argv = [*_DIE_WITH_US, *enter, sys.executable, str(PACER), address, str(port), str(rate), str(lines), *further]
    with _ended(subprocess.Popen(argv, text=True)):
        yield Load(lines)


@contextmanager
def streaming(enter: Sequence[str], address: str, port: int, body: Path) -> Generator["subprocess.Popen[str]"]:
    """One HTTP/2 stream whose answer goes on slowly and without end, until the block ends."""
    url = f"http://{address}:{port}/endless"
    options = ("--silent", "--show-error", "--no-buffer", "--http2-prior-knowledge", "--output", str(body))
    with _ended(subprocess.Popen([*_DIE_WITH_US, *enter, "curl", *options, url], text=True)) as process:
        yield process


def token() -> str:
    """Text that is nowhere else."""
    return f"in-the-clear-{secrets.token_hex(8)}"
