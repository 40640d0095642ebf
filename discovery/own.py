"""The resources that only one proxy has: the ports its peers may reach, and its runtime switches."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from discovery.api import (
    base_pb2,
    extension_pb2,
    rtds_pb2,
    set_filter_state_pb2,
    struct_pb2,
    substitution_format_string_pb2,
    value_pb2,
)
from discovery.resources import EXTENSION, RUNTIME, Resource, resource
from discovery.tls import packed

# The bootstrap's filter that decides where an inbound mutual-TLS connection is dialled, one for each family: the
# address is text, and IPv6 needs brackets. Until discovery has answered its default lets every port through.
DIAL_V4: Final = "inbound_dial_v4"
DIAL_V6: Final = "inbound_dial_v6"
_DIALLED: Final = {
    DIAL_V4: "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%",
    DIAL_V6: "[%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%]",
}
_STATE: Final = "envoy.network.transport_socket.original_dst_address"

RUNTIME_LAYER: Final = "autotls"
# How many of a million requests or connections are reported to the access-log sink; 0 until somebody taps.
TAP: Final = "autotls.tap"


def own_resources(ports: Iterable[int], *, tap: int = 0) -> Mapping[tuple[str, str], Resource]:
    """By (type, name). Proxies with the same ports share the same bytes."""
    return _own(tuple(sorted(set(ports))), tap)


@lru_cache(maxsize=4096)
def _own(ports: tuple[int, ...], tap: int) -> Mapping[tuple[str, str], Resource]:
    found = {(EXTENSION, name): _dial(name, ports) for name in (DIAL_V4, DIAL_V6)}
    found[RUNTIME, RUNTIME_LAYER] = _runtime(tap)
    return found


def _dial(name: str, ports: tuple[int, ...]) -> Resource:
    """The peer's SNI names the port. Any other than `ports` becomes 0, which can never be connected.

    An RBAC filter would come too late: it looks at the first bytes of the client, and a server-first application has
    spoken by then.
    """
    allowed = ", ".join(f"'{port}'" for port in ports)
    asked = "connection.requested_server_name"
    port = f"%CEL({asked} in [{allowed}] ? {asked} : '0')%"
    value = value_pb2.FilterStateValue(
        object_key=_STATE,
        factory_key=_STATE,
        format_string=substitution_format_string_pb2.SubstitutionFormatString(
            text_format_source=base_pb2.DataSource(inline_string=f"{_DIALLED[name]}:{port}")
        ),
        skip_if_empty=True,
    )
    config = set_filter_state_pb2.Config(on_new_connection=[value])
    return resource(EXTENSION, name, extension_pb2.TypedExtensionConfig(name=name, typed_config=packed(config)))


def _runtime(tap: int) -> Resource:
    # An integer: a FractionalPercent struct is silently ignored here.
    layer = struct_pb2.Struct(fields={TAP: struct_pb2.Value(number_value=tap)})
    return resource(RUNTIME, RUNTIME_LAYER, rtds_pb2.Runtime(name=RUNTIME_LAYER, layer=layer))
