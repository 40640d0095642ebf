"""A machine outside the cluster, that the node has a link to: what the cluster calls external."""

import os
import signal
import subprocess
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from tests.cluster.kubectl import Object, containers_of, eventually
from tests.cluster.machine import Machine
from tests.cluster.matrix import OUTSIDE

_NODE_SIDE: Final = "198.51.100.1"


@dataclass(frozen=True, slots=True)
class Outside:
    """A network namespace of its own, a link away from the node. It knows the node and no way further."""

    machine: Machine
    namespace: str

    @property
    def enter(self) -> tuple[str, ...]:
        return ("nsenter", f"--net=/run/netns/{self.namespace}")


@contextmanager
def outside_machine(machine: Machine) -> Generator[Outside]:
    cluster = machine.cluster.folder
    # Both ends' names, at most 15 bytes, are unique on the machine: each end is alone in its namespace.
    made = Outside(machine, f"{cluster.netns}-outside")
    node = ("ip", "-n", cluster.netns)
    inside = ("ip", "-n", made.namespace)
    _remove(made)  # what a test run that was killed has left
    _run("ip", "netns", "add", made.namespace)
    try:
        _run(*node, "link", "add", "outside", "type", "veth", "peer", "name", "node", "netns", made.namespace)
        _run(*node, "address", "add", f"{_NODE_SIDE}/30", "dev", "outside")
        _run(*inside, "address", "add", f"{OUTSIDE}/30", "dev", "node")
        for where, device in ((node, "outside"), (inside, "node"), (inside, "lo")):
            _run(*where, "link", "set", device, "up")
        _run(*inside, "route", "add", "default", "via", _NODE_SIDE)
        yield made
    finally:
        _remove(made)


def _remove(made: Outside) -> None:
    """As much of it as there is."""
    # Servers' children too: they do not end with their parent when that is killed.
    pids = subprocess.run(["ip", "netns", "pids", made.namespace], capture_output=True, text=True, check=False)
    for pid in map(int, pids.stdout.split()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    # The node's end first: the kernel empties a deleted namespace in its own time.
    node = ("ip", "-n", made.machine.cluster.folder.netns)
    subprocess.run([*node, "link", "delete", "outside"], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "delete", made.namespace], capture_output=True, check=False)


@contextmanager
def serving_outside(outside: Outside, like: Object) -> Generator[None]:
    """The containers of a running pod once more, in the outside's network: same files, same programs."""
    with ExitStack() as stack:
        for name, container in containers_of(like).items():
            mounts = f"--mount=/proc/{outside.machine.process_of(like, name)}/ns/mnt"
            stack.enter_context(_running([*outside.enter, mounts, *container["command"]]))
        for container in containers_of(like).values():
            for port in container["ports"]:
                probe = ["nc", "-z", OUTSIDE, str(port["containerPort"])]
                argv = [*outside.machine.cluster.enter_network, *probe]
                eventually(lambda argv=argv: not subprocess.run(argv, check=False).returncode, f"{argv} connects")
        yield


@contextmanager
def _running(argv: Sequence[str]) -> Generator[None]:
    # A test run that is killed must not leave it behind.
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *argv], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait(timeout=30)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
