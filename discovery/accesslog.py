"""What a proxy tells the access-log sink, as values: Envoy's gRPC access logs, read once.

Sources: envoy/service/accesslog/v3/als.proto, envoy/data/accesslog/v3/accesslog.proto. Envoy always sends some header
values along (user-agent, referer, x-forwarded-for); they are never read here, and neither is a query.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import DecodeError

from discovery.api import als_pb2
from discovery.errors import RequestError

# The tags that our loggers add to each entry (discovery/loggers.py and the bootstrap).
TAG_DIRECTION: Final = "dir"
TAG_TLS: Final = "tls"
TAG_PEER: Final = "peer"
TAG_REASON: Final = "reason"
TAG_PATH: Final = "path"
TAG_METHOD: Final = "method"
TAG_GRPC: Final = "grpc"
OUTBOUND: Final = "outbound"
INBOUND: Final = "inbound"

# A message may be as large as its sender likes; what is kept of one field may not.
MAX_FIELD: Final = 1024
_ABSENT: Final = "-"

_HTTP_VERSIONS: Final = {1: "HTTP/1.0", 2: "HTTP/1.1", 3: "HTTP/2", 4: "HTTP/3"}
# ResponseFlags → the short names of `%RESPONSE_FLAGS%` (Envoy documentation, access log usage), for those that our
# configuration can produce.
_FLAGS: Final = {
    "no_healthy_upstream": "UH",
    "upstream_connection_failure": "UF",
    "upstream_connection_termination": "UC",
    "upstream_remote_reset": "UR",
    "upstream_request_timeout": "UT",
    "upstream_overflow": "UO",
    "upstream_retry_limit_exceeded": "URX",
    "upstream_protocol_error": "UPE",
    "local_reset": "LR",
    "no_route_found": "NR",
    "no_cluster_found": "NC",
    "no_filter_config_found": "NFCF",
    "downstream_connection_termination": "DC",
    "downstream_protocol_error": "DPE",
    "downstream_remote_reset": "DR",
    "overload_manager": "OM",
}


@dataclass(frozen=True, slots=True)
class Record:
    """One finished request (`http`) or connection.

    Addresses are `ip:port`, or empty. `source` and `local` are those of the connection that the proxy accepted, `local`
    being where the client wanted to go; `upstream` is what the proxy dialled for it. `tls` is the TLS version on the
    wire, empty for plaintext; `grpc` the status of gRPC as a number, empty for anything else. `started_us` is Unix time
    in microseconds; bytes are of bodies for requests.
    """

    http: bool
    outbound: bool
    started_us: int
    duration_us: int
    protocol: str
    source: str
    local: str
    upstream: str
    cluster: str
    tls: str
    peer: str
    reason: str
    method: str
    authority: str
    path: str
    status: int
    grpc: str
    flags: tuple[str, ...]
    failure: str
    received_bytes: int
    sent_bytes: int


def parse(data: bytes) -> tuple[Record, ...]:
    """The entries of one message of a stream. Raises RequestError."""
    try:
        message: Any = als_pb2.StreamAccessLogsMessage.FromString(data)
    except DecodeError:
        raise RequestError("not a StreamAccessLogsMessage") from None
    http = tuple(map(_http, message.http_logs.log_entry))
    tcp = tuple(map(_tcp, message.tcp_logs.log_entry))
    return http + tcp


def _http(entry: Any) -> Record:
    request, response = entry.request, entry.response
    tags = entry.common_properties.custom_tags
    return _record(
        entry.common_properties,
        http=True,
        protocol=_HTTP_VERSIONS.get(entry.protocol_version, "HTTP"),
        # A tag too: the field has no place for methods that it does not know.
        method=_tag(tags, TAG_METHOD),
        authority=request.authority[:MAX_FIELD],
        # Not request.path: there Envoy prefers a header that any client can send (x-envoy-original-path).
        path=without_query(_tag(tags, TAG_PATH)),
        status=response.response_code.value,
        grpc=_tag(tags, TAG_GRPC),
        received_bytes=request.request_body_bytes,
        sent_bytes=response.response_body_bytes,
    )


def _tcp(entry: Any) -> Record:
    connection = entry.connection_properties
    return _record(
        entry.common_properties,
        http=False,
        protocol="TCP",
        received_bytes=connection.received_bytes,
        sent_bytes=connection.sent_bytes,
    )


def _record(common: Any, **own: Any) -> Record:
    tags = common.custom_tags
    values: dict[str, Any] = {"method": "", "authority": "", "path": "", "status": 0, "grpc": "", **own}
    return Record(
        outbound=_tag(tags, TAG_DIRECTION) != INBOUND,
        started_us=common.start_time.ToMicroseconds(),
        duration_us=common.duration.ToMicroseconds(),
        source=_address(common.downstream_remote_address),
        local=_address(common.downstream_local_address),
        upstream=_address(common.upstream_remote_address),
        cluster=common.upstream_cluster[:MAX_FIELD],
        tls=_tag(tags, TAG_TLS),
        peer=_tag(tags, TAG_PEER),
        reason=_tag(tags, TAG_REASON),
        flags=tuple(_flags(common.response_flags)),
        failure=common.upstream_transport_failure_reason[:MAX_FIELD],
        **values,
    )


def without_query(path: str) -> str:
    """`/a?…` for `/a?token=secret`: a query may be as secret as a body."""
    bare, mark, _ = path[:MAX_FIELD].partition("?")
    return f"{bare}?…" if mark else bare


def _tag(tags: Any, key: str) -> str:
    text: str = tags.get(key, "")[:MAX_FIELD]
    return "" if text == _ABSENT else text


def _address(address: Any) -> str:
    """`10.0.0.1:80` or `[fd00::1]:80`."""
    socket = address.socket_address
    if not socket.address:
        return ""
    host = socket.address.removeprefix("::ffff:")
    return f"[{host}]:{socket.port_value}" if ":" in host else f"{host}:{socket.port_value}"


def _flags(flags: Any) -> Iterator[str]:
    for descriptor, value in flags.ListFields():
        if value is True and descriptor.name in _FLAGS:
            yield _FLAGS[descriptor.name]


def count(data: bytes) -> int:
    """How many entries a message holds, without reading them; 0 for bytes that are no message.

    Walks the protobuf fields `http_logs` (2) and `tcp_logs` (3), whose `log_entry` is field 1.
    """
    return sum(_walk(data, start, end) for number, start, end in _fields(data, 0, len(data)) if number in (2, 3))


def _walk(data: bytes, start: int, end: int) -> int:
    return sum(number == 1 for number, _, _ in _fields(data, start, end))


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, start, end) of each length-delimited field; ends at the first byte that is none."""
    while at < end:
        key, at = _varint(data, at, end)
        length, at = _varint(data, at, end)
        if key & 7 != 2 or at + length > end:
            return
        yield key >> 3, at, at + length
        at += length


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    return 0, end
