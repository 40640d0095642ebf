"""Which addresses kube-proxy would send a Service's connections to.

Source: k8s.io/kubernetes pkg/proxy/topology.go (CategorizeEndpoints) and endpointslicecache.go: ready endpoints; if
there is none at all, those that are terminating but still serving. publishNotReadyAddresses needs nothing here: the
EndpointSlice controller then writes ready=true itself.
"""

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Final

from discovery.kinds import EndpointConditions, EndpointSlice

# A slice of type FQDN has names, which nobody can balance over.
FAMILIES: Final = ("IPv4", "IPv6")


@dataclass(frozen=True, slots=True, order=True)
class Backend:
    """One address and port behind a Service."""

    address: str
    port: int


def backends_of(
    slices: Iterable[EndpointSlice],
    port_name: str | None,
    *,
    families: Container[str] = FAMILIES,
    all_of_them: bool = False,
) -> tuple[Backend, ...]:
    """The backends of the Service port named `port_name`, each once, in a fixed order.

    `families`: address types of the slices to look at (kube-proxy decides in each family alone). `all_of_them`: also
    those that are neither ready nor serving.
    """
    ready: set[Backend] = set()
    terminating: set[Backend] = set()
    rest: set[Backend] = set()
    for piece in slices:
        if piece.address_type not in families:
            continue
        # A named port may have another number in each pod: the controller then writes one slice per number.
        numbers = [
            port.port
            for port in piece.ports or ()
            if port.port and (port.protocol or "TCP") == "TCP" and (port.name or "") == (port_name or "")
        ]
        for endpoint in piece.endpoints or ():
            group = _group(endpoint.conditions or EndpointConditions(), ready, terminating, rest)
            # All addresses of one endpoint are the same backend; kube-proxy takes the first.
            group.update(Backend(address, number) for address in endpoint.addresses[:1] for number in numbers)
    if all_of_them:
        return tuple(sorted(ready | terminating | rest))
    return tuple(sorted(ready or terminating))


def _group(
    conditions: EndpointConditions, ready: set[Backend], terminating: set[Backend], rest: set[Backend]
) -> set[Backend]:
    # Absent means ready (EndpointConditions in k8s.io/api/discovery/v1 types.go).
    if conditions.ready is not False:
        return ready
    if conditions.serving and conditions.terminating:
        return terminating
    return rest
