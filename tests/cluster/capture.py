"""Everything that passes a pod's end of the network, as bytes."""

import json
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster.kubectl import eventually
from tests.cluster.machine import Machine
from tests.cluster.mutual import token

SNIFFER: Final = Path(__file__).with_name("sniffer.py")
# Nobody listens there; what is sent passes the wire all the same. UDP is not redirected.
_NOWHERE: Final = 9


@dataclass(frozen=True, slots=True)
class Capture:
    """The frames of one pod since the capture began."""

    machine: Machine
    enter: Sequence[str]
    file: Path

    def frames(self) -> bytes:
        """Every frame that passed before this call: one that is sent now is waited for, and frames keep their order."""
        last = token().encode()
        to = (str(self.machine.node.link.node), _NOWHERE)
        send = f"import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto({last!r}, {to!r})"

        def seen() -> bytes:
            subprocess.run([*self.enter, sys.executable, "-S", "-c", send], check=True, timeout=60)
            found = self.file.read_bytes()
            return found if last in found else b""

        return eventually(seen, "the capture shows a frame that was sent")


@contextmanager
def capturing(machine: Machine, enter: Sequence[str], file: Path) -> Generator[Capture]:
    """Writes what passes the node's end of a pod's veth pair to `file` within the block. `enter` leads to the pod."""
    argv = [*enter, "ip", "-oneline", "link", "show", "eth0"]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    # "2: eth0@if12: <BROADCAST,..."
    index = int(shown.stdout.split("@if", 1)[1].split(":", 1)[0])
    node = machine.cluster.enter_network
    links = subprocess.run([*node, "ip", "-json", "link"], capture_output=True, text=True, check=True, timeout=60)
    name = next(link["ifname"] for link in json.loads(links.stdout) if link["ifindex"] == index)
    # A test run that is killed must not leave it behind.
    argv = ["setpriv", "--pdeathsig", "KILL", *node, sys.executable, str(SNIFFER), name, str(file)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Capture(machine, enter, file)
    finally:
        process.kill()
        process.wait(timeout=30)
