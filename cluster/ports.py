"""Ports on the loopback for programs that must be told theirs before they start.

A port that was free when somebody looked may be taken when the program binds it. So it stays bound here: Linux lets two
sockets bind one port when both ask for SO_REUSEADDR and the other does not listen (socket(7)), which Go, asyncio and
uvloop ask for in every server. Nobody else is given it, neither by `bind` to port 0 nor for an outgoing connection.
"""

import random
import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Final

from cluster.errors import StartError

# Below the ports that the kernel gives to outgoing connections (ip_local_port_range, from 32768).
_PORTS: Final = range(20000, 32000)
_TRIES: Final = 50


@contextmanager
def reserved(*, candidates: Sequence[int] = _PORTS) -> Generator[int]:
    """A free port that stays ours, and whoever's we tell it to, until the block ends. Raises StartError."""
    for port in random.sample(candidates, min(_TRIES, len(candidates))):
        held = socket.socket()
        try:
            # Alone first: a port that somebody else has reserved is refused.
            held.bind(("127.0.0.1", port))
        except OSError:
            held.close()
            continue
        with held:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            yield port
        return
    raise StartError("no port on 127.0.0.1 was free", hint="look for programs that listen with `ss -tln`")
