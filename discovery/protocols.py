"""What a port speaks: declared by its Service, or left to detection."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from discovery.kinds import ServicePort


class Protocol(StrEnum):
    """HTTP: an HTTP codec at once. TCP: bytes, no inspection. DETECTED: looked at for at most 50 ms, then bytes."""

    HTTP = "http"
    TCP = "tcp"
    DETECTED = "detected"


# KEP-3726 (kubernetes.io/h2c, ws, wss), IANA service names, and the words meshes have taught people.
_HTTP_APP_PROTOCOLS: Final = frozenset(
    {"http", "http2", "h2c", "grpc", "grpc-web", "ws", "kubernetes.io/h2c", "kubernetes.io/ws"}
)
# A name is a hint, not a promise: ports called `http` carry TLS and worse. Detection takes real HTTP at once, because
# its client speaks first, so a name of HTTP gains nothing over detection; only names of other protocols are taken.
_TCP_NAMES: Final = frozenset({
    "tcp", "tls", "https", "wss", "mysql", "mariadb", "postgres", "postgresql", "pgsql", "redis", "mongo",
    "mongodb", "memcached", "memcache", "amqp", "amqps", "mqtt", "mqtts", "smtp", "smtps", "submission", "imap",
    "imaps", "pop3", "pop3s", "ldap", "ldaps", "kafka", "nats", "zookeeper", "cassandra", "cql", "ssh", "ftp",
    "sftp", "rsync", "nfs", "rtsp", "sip", "xmpp", "mssql", "oracle", "jdbc", "etcd-peer",
})  # fmt: skip
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
        # Any other declared protocol is one that an HTTP codec could only harm.
        return Protocol.HTTP if port.app_protocol.lower() in _HTTP_APP_PROTOCOLS else Protocol.TCP
    return protocol_of_name(port.name)


def protocol_of_name(name: str | None) -> Protocol:
    """`mysql`, `tcp-metrics`: the whole name or its first word."""
    if name and (name in _TCP_NAMES or name.partition("-")[0] in _TCP_NAMES):
        return Protocol.TCP
    return Protocol.DETECTED
