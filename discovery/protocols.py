"""What a port speaks: declared by its Service, looked at where HTTP is likely, bytes everywhere else."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from discovery.kinds import ServicePort


class Protocol(StrEnum):
    """HTTP: an HTTP codec at once. TCP: bytes, no inspection. DETECTED: looked at for at most 50 ms, then bytes.

    WEBSOCKET is HTTP whose connections the server ends, which Envoy takes for failures (discovery.clusters).
    """

    HTTP = "http"
    WEBSOCKET = "websocket"
    TCP = "tcp"
    DETECTED = "detected"


# KEP-3726 (kubernetes.io/h2c, ws, wss), IANA service names, and the words meshes have taught people.
_HTTP_APP_PROTOCOLS: Final = frozenset({"http", "http2", "h2c", "grpc", "grpc-web", "kubernetes.io/h2c"})
_WEBSOCKET_APP_PROTOCOLS: Final = frozenset({"ws", "kubernetes.io/ws"})
# A name is a hint, not a promise: ports called `http` carry TLS and worse, so no name chooses the HTTP codec.
# The bytes are looked at only under the names and numbers where HTTP is at home. Envoy 1.40's listener filters drop,
# uncounted, a connection whose client sends and closes its side before they have looked (`printf | nc -N`, which is
# how graphite or syslog over TCP are fed); a port that is not looked at loses its HTTP statistics and nothing else.
_HTTP_NAMES: Final = frozenset({
    "http", "http1", "http2", "h2", "h2c", "grpc", "web", "www", "ws", "websocket", "rest", "api", "graphql",
})  # fmt: skip
_HTTP_PORTS: Final = frozenset({80, 3000, 5000, 8000, 8008, 8080, 8081, 8088, 8888})
_PORT_RANGE: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class PortSet:
    """Ports and ranges as settings write them: `25,587,8000-8100`."""

    ranges: tuple[range, ...]

    @classmethod
    def parse(cls, text: str) -> "PortSet":
        """What cannot be read is left out: settings were checked at admission and are reported there."""
        return cls(tuple(_ranges(text.split(","))))

    def __contains__(self, port: int) -> bool:
        return any(port in ports for ports in self.ranges)


NO_PORTS: Final = PortSet(())


def _ranges(entries: Iterable[str]) -> Iterable[range]:
    for entry in entries:
        if match := _PORT_RANGE.match(entry.strip()):
            yield range(int(match[1]), int(match[2] or match[1]) + 1)


def protocol_of(port: ServicePort, target_ports: Iterable[int], opaque: PortSet) -> Protocol:
    """What connections to `port` speak. Opaque ports first (they are the user's word), then appProtocol, then name."""
    if port.port in opaque or any(target in opaque for target in target_ports):
        return Protocol.TCP
    if port.app_protocol:
        declared = port.app_protocol.lower()
        if declared in _WEBSOCKET_APP_PROTOCOLS:
            return Protocol.WEBSOCKET
        # Any other declared protocol is one that an HTTP codec could only harm.
        return Protocol.HTTP if declared in _HTTP_APP_PROTOCOLS else Protocol.TCP
    return undeclared_protocol(port.name, (port.port, *target_ports))


def undeclared_protocol(name: str | None, numbers: Iterable[int]) -> Protocol:
    """DETECTED for a port that is named like HTTP (`grpc-internal`: the first word counts), or has no name and a number
    of HTTP; TCP for every other."""
    likely = name.partition("-")[0] in _HTTP_NAMES if name else any(number in _HTTP_PORTS for number in numbers)
    return Protocol.DETECTED if likely else Protocol.TCP
