"""What a proxy says, read once."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError

from discovery.api import discovery_pb2
from discovery.errors import RequestError


@dataclass(frozen=True, slots=True)
class Request:
    """One DeltaDiscoveryRequest. `versions` is what the proxy brings along from an earlier stream; `rejected` says why
    it did not take our last answer (empty: it did)."""

    type_url: str
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    rejected: str = ""
    node_id: str = ""
    mode: str = ""


def parse_request(data: bytes) -> Request:
    """Raises RequestError."""
    try:
        message: Any = discovery_pb2.DeltaDiscoveryRequest.FromString(data)
    except DecodeError:
        raise RequestError("not a DeltaDiscoveryRequest") from None
    fields = message.node.metadata.fields
    return Request(
        type_url=message.type_url,
        # Interned: a thousand proxies ask for the same names, and each would keep its own copies.
        subscribe=tuple(map(sys.intern, message.resource_names_subscribe)),
        unsubscribe=tuple(message.resource_names_unsubscribe),
        versions={sys.intern(name): text for name, text in message.initial_resource_versions.items()},
        rejected=message.error_detail.message[:1000] or "unknown" if message.HasField("error_detail") else "",
        node_id=message.node.id,
        mode=fields["mode"].string_value if "mode" in fields else "",
    )
