"""Who talks to whom: one edge for each client and server workload, as `autotls edges` shows it. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from telemetry.flows import Flow
from telemetry.ledger import Ledger, Traffic, is_probe
from telemetry.parties import Party
from telemetry.rows import Kind


@dataclass(slots=True)
class Edge:
    """`traffic` from `client` to `server`; the identities that mutual TLS proved, none where all was plaintext."""

    client: Party
    server: Party
    traffic: Traffic = field(default_factory=Traffic)
    client_identities: set[str] = field(default_factory=set[str])
    server_identities: set[str] = field(default_factory=set[str])
    protocols: set[str] = field(default_factory=set[str])


def edges(book: Ledger, kind: Kind | None = Kind.DEPLOYMENT, namespace: str | None = None) -> tuple[Edge, ...]:
    """Every pair with traffic of which one end is of that kind (None: any workload) and namespace, ordered by names.

    Clients' proxies know both ends, so they are asked; a server's proxy only for plaintext of clients that have none or
    whose traffic does not pass it. `Kind.NAMESPACE` puts all workloads of a namespace together.
    """
    found: dict[tuple[str, str], Edge] = {}
    for flow in _once(book):
        client, server = _end(flow.client, kind), _end(flow.server, kind)
        if not any(_wanted(party, kind, namespace) for party in (client, server)):
            continue
        edge = found.setdefault((client.name, server.name), Edge(client, server))
        edge.traffic.add(flow, client, book.reason_of(flow))
        edge.protocols.update(flow.protocols)
        if flow.tls and flow.tally.units:
            edge.client_identities.update({flow.client_identity} - {""})
            edge.server_identities.update({flow.server_identity} - {""})
    return tuple(found[key] for key in sorted(found) if found[key].traffic.units)


def _once(book: Ledger) -> Iterable[Flow]:
    for pod in book.cluster.pods:
        yield from book.outbound.get(pod.key, ())
        for flow in book.inbound.get(pod.key, ()):
            client = flow.client.pod
            told_by_client = client is not None and client.meshed and client.redirected
            if not flow.tls and not told_by_client and not is_probe(flow):
                yield flow


def _end(party: Party, kind: Kind | None) -> Party:
    if kind is not Kind.NAMESPACE:
        return party
    return Party(party.namespace, party.namespace) if party.namespace else party


def _wanted(party: Party, kind: Kind | None, namespace: str | None) -> bool:
    if namespace is not None and party.namespace != namespace:
        return False
    if kind is Kind.NAMESPACE:
        return bool(party.namespace)
    return party.workload is not None and kind in (None, party.workload.kind)
