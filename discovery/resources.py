"""An xDS resource as bytes: built once, serialized once, shared by every proxy that gets it."""

import hashlib
from dataclasses import dataclass
from typing import Final

from discovery.api import Message, discovery_pb2
from discovery.wire import field

CLUSTER: Final = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINTS: Final = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER: Final = "type.googleapis.com/envoy.config.listener.v3.Listener"
EXTENSION: Final = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
RUNTIME: Final = "type.googleapis.com/envoy.service.runtime.v3.Runtime"

# Make before break: a listener must not name a cluster that Envoy has not got, nor outlive one.
PUSH_ORDER: Final = (CLUSTER, ENDPOINTS, EXTENSION, LISTENER, RUNTIME)
# Types a proxy gets all of without naming them.
WILDCARD_TYPES: Final = frozenset({CLUSTER, LISTENER})
# Removing these together with a listener cost 32,899 failed requests in a trial: a draining listener still routes to
# its cluster. They leave later.
LINGERING_TYPES: Final = frozenset({CLUSTER, ENDPOINTS})

# Of resources in one message. Envoy takes a message apart as a whole, and what that needed for a moment stays with its
# allocator: 15 MB of each sidecar when 1,000 Services came in one piece.
MAX_ANSWER_BYTES: Final = 256 * 1024

# Field numbers of DeltaDiscoveryResponse (envoy/service/discovery/v3/discovery.proto).
_SYSTEM_VERSION, _RESOURCES, _TYPE_URL, _NONCE, _REMOVED = 1, 2, 4, 5, 6


@dataclass(frozen=True, slots=True, eq=False)
class Resource:
    """`encoded` is the whole field of a DeltaDiscoveryResponse; `version` a hash of the content alone.

    A version that depends on the content alone means the same in every replica and after every restart, so a proxy
    that reconnects is sent nothing it has.
    """

    type_url: str
    name: str
    version: str
    encoded: bytes
    owners: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Resource({self.name!r}, {self.version}, {len(self.encoded)} bytes)"


def resource(type_url: str, name: str, message: Message, owners: tuple[str, ...] = ()) -> Resource:
    """`message` as a resource; `owners` is what a reach may name to get it."""
    content = message.SerializeToString(deterministic=True)
    version = hashlib.sha256(content).hexdigest()[:12]
    wrapped = discovery_pb2.Resource(name=name, version=version)
    wrapped.resource.type_url = type_url
    wrapped.resource.value = content
    return Resource(type_url, name, version, field(_RESOURCES, wrapped.SerializeToString()), owners)


def parted(resources: list[Resource]) -> list[list[Resource]]:
    """The same in the same order, each part small enough for one message; one empty part for none."""
    parts: list[list[Resource]] = [[]]
    size = 0
    for entry in resources:
        size += len(entry.encoded)
        if size > MAX_ANSWER_BYTES and parts[-1]:
            parts.append([])
            size = len(entry.encoded)
        parts[-1].append(entry)
    return parts


def response(type_url: str, nonce: str, resources: list[Resource], removed: list[str]) -> bytes:
    """A DeltaDiscoveryResponse: its few small fields before the resources' ready-made bytes."""
    parts = [field(_SYSTEM_VERSION, nonce.encode()), field(_TYPE_URL, type_url.encode())]
    parts.extend(entry.encoded for entry in resources)
    parts.append(field(_NONCE, nonce.encode()))
    parts.extend(field(_REMOVED, name.encode()) for name in removed)
    return b"".join(parts)
