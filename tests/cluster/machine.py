"""The node as seen from the machine: processes of containers, Kubernetes' own programs, and peers in its network."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cluster import controlplane, lifecycle, network, node
from cluster.node import Node
from mesh import names
from tests.cluster.kubectl import Object, eventually, statuses_of
from tests.fixtures_cluster import RunningCluster

CALLER: Final = Path(__file__).with_name("caller.py")
Series = Mapping[str, float]
"""A metric's values by their labels, as the proxy writes them."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The node of a running cluster."""

    cluster: RunningCluster

    @property
    def node(self) -> Node:
        folder = self.cluster.folder
        link = network.current(folder)
        assert link is not None
        return Node(folder, lifecycle.plane_of(folder, link), link, lifecycle.table_of(folder))

    def process_of(self, pod: Object, container: str) -> int:
        """The pid on the machine of a running container's process 1; `pod` may be from before its last restart."""
        meta = pod["metadata"]

        def found() -> int | None:
            nonlocal pod
            status = statuses_of(pod).get(container, {})
            pid = self.processes().get(status.get("containerID", "").removeprefix("containerd://"))
            if pid is None:
                pod = self.cluster.get("pod", meta["name"], f"--namespace={meta['namespace']}")
            return pid

        return eventually(found, lambda: f"{container} of {meta['name']} runs: {statuses_of(pod).get(container)}")

    def processes(self) -> dict[str, int]:
        """Container id -> pid on the machine of its process 1."""
        argv = [str(self.cluster.folder.bin / "ctr"), "tasks", "list"]
        listed = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
        rows = [line.split() for line in listed if line and not line.startswith("TASK")]
        return {row[0]: int(row[1]) for row in rows if row[2] == "RUNNING"}

    def envoy_of(self, pod: Object) -> int | None:
        """The pid of Envoy, the child of the sidecar's process 1; None while it is not running."""
        parent = self.process_of(pod, names.PROXY_CONTAINER)
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return next((int(pid) for pid in children if _name_of(int(pid)) == "envoy"), None)

    @contextmanager
    def paused(self, *pids: int) -> Generator[None]:
        """These processes stand still: they keep their connections and answer nobody."""
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def kill(self, program: str) -> None:
        """SIGKILL to one of Kubernetes' own programs, as a crash; it is gone on return."""
        process = self.node.table.get(program)
        assert process is not None, f"{program} does not run"
        os.kill(process.pid, signal.SIGKILL)
        eventually(lambda: not process.alive(), f"{program} has ended")

    def start(self, program: str) -> None:
        """Start it again on the same data."""
        machine, folder = self.node, self.cluster.folder
        holder = machine.table.get("holder")
        assert holder is not None
        match program:
            case "etcd":
                controlplane.start_storage(machine.plane, machine.table, folder.tools / "etcd", machine.enter_network)
            case "kube-apiserver":
                binary = folder.tools / "kube-apiserver"
                controlplane.start_apiserver(machine.plane, machine.table, binary, machine.enter_network)
            case "kubelet":
                node.start_kubelet(machine, holder)
            case _:
                raise AssertionError(program)

    def call(self, *jobs: dict[str, Any], enter: Sequence[str] = ()) -> list[dict[str, Any]]:
        """What a peer sees of each job (see `caller.py`); it is on the node's network, or where `enter` leads to."""
        argv = [*(enter or self.cluster.enter_network), sys.executable, str(CALLER), "once"]
        done = subprocess.run(argv, input=json.dumps(jobs), capture_output=True, text=True, check=True, timeout=900)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def metric(self, address: str, port: int, name: str, **labels: str) -> float:
        """The sum of a metric of a pod over all series with these labels; 0 when nothing was counted yet."""
        return sum(self.series(address, port, name, **labels).values())

    def series(self, address: str, port: int, name: str, **labels: str) -> dict[str, float]:
        """The same, series by series: a proxy gives up those that nothing counts for some minutes.

        Asks until it is answered: a proxy may be starting, and a busy one takes its time.
        """
        host = f"[{address}]" if ":" in address else address
        argv = ["curl", "--silent", "--show-error", "--fail", "--max-time", "60", f"http://{host}:{port}/metrics"]
        told: list[str] = []

        def answered() -> "subprocess.CompletedProcess[str] | None":
            done = subprocess.run([*self.cluster.enter_network, *argv], capture_output=True, text=True, check=False)
            told[:] = [done.stderr]
            return done if done.returncode == 0 else None

        done = eventually(answered, lambda: f"metrics of {address}:{port}: {told}")
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        lines = [line for line in done.stdout.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        found = (line.rpartition(" ") for line in lines if all(label in line for label in wanted))
        return {series: float(value) for series, _, value in found}


def growth(before: Series, after: Series) -> float:
    """What was counted in between. A series that nothing counts for some minutes is given up, and begins at zero."""
    return sum(value - before.get(name, 0) if value >= before.get(name, 0) else value for name, value in after.items())


def _name_of(pid: int) -> str:
    """The name of a process; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class Watch:
    """Requests that go on in the background, and what became of each."""

    lines: Path

    def answers(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def wait_for_more(self, count: int = 3) -> None:
        """Returns when so many more requests have ended than now."""
        before = len(self.answers())
        eventually(lambda: len(self.answers()) >= before + count, f"{count} more requests in {self.lines.name}")

    def failures(self) -> list[dict[str, Any]]:
        return [answer for answer in self.answers() if answer.get("status") != 200]


@contextmanager
def watching(enter: Sequence[str], job: dict[str, Any], lines: Path) -> Generator[Watch]:
    """Repeats `job` in the network that `enter` leads to, until the block ends."""
    lines.touch()
    # A test run that is killed must not leave it behind.
    argv = ["setpriv", "--pdeathsig", "KILL", *enter, sys.executable, str(CALLER), "watch", str(lines)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(json.dumps(job))
    process.stdin.close()
    try:
        yield Watch(lines)
    finally:
        process.kill()
        process.wait(timeout=30)
