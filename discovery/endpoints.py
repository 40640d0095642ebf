"""The addresses behind a cluster: by TLS where the peer is meshed, and the plaintext way out of optional mode."""

from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Final

from discovery.api import Message, address_pb2, base_pb2, endpoint_components_pb2, endpoint_pb2, struct_pb2
from discovery.clusters import u32
from discovery.snapshot import Endpoint
from discovery.tls import MATCH_KEY, MATCH_VALUE, Mode
from mesh import names, series
from mesh.reasons import Plaintext

# Envoy counts a priority as failing below 100/factor of its addresses; at the default (140) plaintext got 6-8 % of
# the requests to healthy peers when one of three was ejected.
OVERPROVISIONING: Final = 100_000
# The namespace of metadata, empty, that only the plaintext addresses of meshed peers have.
FALLBACK: Final = "autotls.fallback"


def build_endpoints(
    name: str, endpoints: Iterable[Endpoint], mode: Mode, pinned: Collection[str] | None = None
) -> Message:
    """Priority 0: meshed peers on 15108, their port as the SNI, and unmeshed ones as they are.

    Priority 1, in optional mode: the plaintext addresses of the meshed peers that are not strict themselves.
    `pinned`: the identities that proxies already accept for this cluster; endpoints of others are left out until they
    do (discovery.pins). None: all.
    """
    first: list[Message] = []
    fallback: list[Message] = []
    for endpoint in endpoints:
        if not endpoint.identity:
            first.append(_plain(endpoint, endpoint.reason or Plaintext.NOT_MESHED))
        elif pinned is None or endpoint.identity in pinned:
            first.append(_meshed(endpoint))
            if mode is Mode.OPTIONAL and not endpoint.strict:
                fallback.append(_plain(endpoint, Plaintext.TLS_FAILED))
    assignment = endpoint_pb2.ClusterLoadAssignment(
        cluster_name=name,
        endpoints=[endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=first)],
        policy=endpoint_pb2.ClusterLoadAssignment.Policy(overprovisioning_factor=u32(OVERPROVISIONING)),
    )
    if fallback:
        assignment.endpoints.add(lb_endpoints=fallback, priority=1)
    return assignment


def _meshed(endpoint: Endpoint) -> Message:
    return _lb_endpoint(
        endpoint.address, names.INBOUND_TLS_PORT, str(endpoint.port), _metadata("", endpoint.workload, meshed=True)
    )


def _plain(endpoint: Endpoint, reason: Plaintext) -> Message:
    return _lb_endpoint(endpoint.address, endpoint.port, "", _metadata(reason.value, endpoint.workload, meshed=False))


def _lb_endpoint(address: str, port: int, hostname: str, metadata: Message) -> Message:
    return endpoint_components_pb2.LbEndpoint(
        endpoint=endpoint_components_pb2.Endpoint(address=socket_address(address, port), hostname=hostname),
        metadata=metadata,
        load_balancing_weight=u32(1),
    )


def socket_address(address: str, port: int) -> Message:
    return address_pb2.Address(socket_address=address_pb2.SocketAddress(address=address, port_value=port))


@lru_cache(maxsize=1024)
def _metadata(reason: str, workload: str, *, meshed: bool) -> Message:
    """What the statistics read (mesh.series), that the endpoint is a way out, and that it is dialled by TLS."""
    said = {series.REASON: reason, series.DST: workload}
    found = {series.METADATA: _struct({key: value for key, value in said.items() if value})}
    if reason == Plaintext.TLS_FAILED.value:
        found[FALLBACK] = _struct({})
    if meshed:
        found["envoy.transport_socket_match"] = _struct({MATCH_KEY: MATCH_VALUE})
    return base_pb2.Metadata(filter_metadata=found)


def _struct(fields: Mapping[str, str]) -> Message:
    return struct_pb2.Struct(fields={key: struct_pb2.Value(string_value=value) for key, value in fields.items()})
