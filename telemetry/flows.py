"""One proxy's counters as flows: who sent how much to whom, by TLS or why not. Pure.

A flow is one set of labels (mesh.series, docs/telemetry.md) with its names resolved. Both ends of a connection may have
one: which of them counts is decided by telemetry.received and telemetry.edges, so that nothing counts twice.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from mesh import series
from telemetry.exposition import Series
from telemetry.histogram import Histogram
from telemetry.parties import Party, is_address, of_destination, of_identity, of_source, passed_through, service_of
from telemetry.workloads import Inventory, PodFacts

TCP: Final = "TCP"
_REQUESTS: Final = frozenset({series.REQUESTS, series.AUTHORITY_REQUESTS})
# google.rpc.Code: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE and DATA_LOSS are HTTP's 5xx.
_FAILED_GRPC: Final = frozenset({"2", "4", "12", "13", "14", "15"})


@dataclass(slots=True)
class Tally:
    """What was counted; `latency` in microseconds, bytes as whoever opened the connection sent and got them."""

    requests: float = 0.0
    succeeded: float = 0.0
    connections: float = 0.0
    received: float = 0.0
    sent: float = 0.0
    latency: Histogram = field(default_factory=Histogram)

    @property
    def units(self) -> float:
        """What shares are of: requests for HTTP, connections otherwise."""
        return self.requests + self.connections

    def add(self, other: "Tally") -> None:
        self.requests += other.requests
        self.succeeded += other.succeeded
        self.connections += other.connections
        self.received += other.received
        self.sent += other.sent
        self.latency = self.latency.plus(other.latency)


@dataclass(frozen=True, slots=True)
class Flow:
    """Traffic of one kind, as the proxy of pod `seen_by` counted it."""

    seen_by: PodFacts
    inbound: bool
    tls: bool
    undelivered: bool  # neither by TLS nor in plaintext: the client's proxy got no connection
    reason: str  # of plaintext that a client's proxy sent, a word of mesh.reasons; else empty
    client: Party
    server: Party
    svc: str  # what was dialled, as the series say it; empty where they do not
    service: str  # `namespace/name` of the Service that was dialled; empty for none
    port: int  # of the server, where its own proxy counted; else 0
    client_identity: str
    server_identity: str
    protocols: tuple[str, ...]
    authority: str  # such a flow is counted beside the others and never added to them
    tally: Tally


# What a flow is told apart by. Not every series has all of these, so what is one to the reader may be several flows,
# each with a part of the numbers: sums over flows are right, a single one may lack something.
_IDENTIFYING: Final = (
    *(series.DIR, series.TLS, series.SVC, series.DST, series.REASON, series.SRC, series.PORT, series.AUTHORITY),
)
# Of what came in, also the peer's identity: there it is a label of every series, outbound only of `rq`.
_CLIENT: Final = "client"
_BY_AUTHORITY: Final = frozenset({series.AUTHORITY_REQUESTS, series.REQUEST_US})


@dataclass(slots=True)
class _Gathered:
    tally: Tally = field(default_factory=Tally)
    servers: Counter[str] = field(default_factory=Counter[str])
    protocols: set[str] = field(default_factory=set[str])

    def take(self, measure: str, added: Series) -> None:
        if measure in _REQUESTS:
            self._count(added.labels, added.value)
        elif measure == series.RECEIVED:
            self.tally.received += added.value
        elif measure == series.SENT:
            self.tally.sent += added.value
        elif measure == series.REQUEST_US:
            self.tally.latency = self.tally.latency.plus(Histogram.of(added.buckets))

    def _count(self, labels: Mapping[str, str], value: float) -> None:
        protocol = labels.get(series.PROTO, "")
        if protocol:
            self.protocols.add(protocol)
        if labels.get(series.DIR) == series.OUTBOUND and labels.get(series.PEER):
            self.servers[labels[series.PEER]] += round(value)
        if protocol == TCP:
            self.tally.connections += value
            return
        self.tally.requests += value
        self.tally.succeeded += value if is_success(labels.get(series.CODE, ""), labels.get(series.GRPC, "")) else 0


def is_success(code: str, grpc: str) -> bool:
    """An answer below 500, and of gRPC a status that is not the server's fault. No answer (`0`) is none."""
    answered = code.isascii() and code.isdigit() and 100 <= int(code) < 500
    return answered and grpc not in _FAILED_GRPC


def flows_of(pod: PodFacts, counted: Iterable[Series], cluster: Inventory) -> tuple[Flow, ...]:
    """The flows of one proxy, from what was added to its series (telemetry.window)."""
    gathered: dict[tuple[str, ...], _Gathered] = defaultdict(_Gathered)
    for added in counted:
        measure = added.name.removeprefix(series.EXPOSED)
        if measure == added.name:
            continue
        inbound = added.labels.get(series.DIR) == series.INBOUND
        client = added.labels.get(series.PEER, "") if inbound else ""
        for kept in _copies(measure, added.labels):
            gathered[*(kept.get(label, "") for label in _IDENTIFYING), client].take(measure, added)
    named = (*_IDENTIFYING, _CLIENT)
    return tuple(_flow(pod, dict(zip(named, key, strict=True)), each, cluster) for key, each in gathered.items())


def _copies(measure: str, labels: Mapping[str, str]) -> Iterable[Mapping[str, str]]:
    """The labels that a series counts under: durations by authority are those of the traffic as well."""
    if measure not in _BY_AUTHORITY:
        return (labels,)
    alone = {key: value for key, value in labels.items() if key != series.AUTHORITY}
    if not labels.get(series.AUTHORITY):
        return (alone,) if measure == series.REQUEST_US else ()
    # Requests by authority do not say which workload got them.
    by_authority = {key: value for key, value in labels.items() if key != series.DST}
    return (by_authority, alone) if measure == series.REQUEST_US else (by_authority,)


def _flow(pod: PodFacts, labels: Mapping[str, str], found: _Gathered, cluster: Inventory) -> Flow:
    inbound = labels[series.DIR] == series.INBOUND
    return (_received if inbound else _sent)(pod, labels, found, cluster)


def _received(pod: PodFacts, labels: Mapping[str, str], found: _Gathered, cluster: Inventory) -> Flow:
    peer = labels[_CLIENT]
    return Flow(
        seen_by=pod,
        inbound=True,
        tls=bool(peer),
        undelivered=False,
        reason="",
        client=of_identity(peer, cluster) if peer else of_source(labels[series.SRC], cluster),
        server=Party.of_pod(pod),
        svc="",
        service="",
        port=int(labels[series.PORT]) if labels[series.PORT].isdigit() else 0,
        client_identity=peer,
        server_identity="",
        protocols=tuple(sorted(found.protocols)),
        authority="",
        tally=found.tally,
    )


def _sent(pod: PodFacts, labels: Mapping[str, str], found: _Gathered, cluster: Inventory) -> Flow:
    dst, svc, reason = labels[series.DST], labels[series.SVC], labels[series.REASON]
    if not reason and is_address(dst):
        reason = passed_through(dst, cluster)
    # Only `rq` says whether there was a connection; of the other series, no reason means TLS.
    tls = bool(labels[series.TLS]) or (not reason and not found.tally.units)
    return Flow(
        seen_by=pod,
        inbound=False,
        tls=tls,
        undelivered=not tls and not reason,
        reason=reason,
        client=Party.of_pod(pod),
        server=of_destination(dst, svc, cluster),
        svc=svc,
        service=service_of(dst, svc, cluster),
        port=0,
        client_identity=pod.identity,
        server_identity=found.servers.most_common(1)[0][0] if found.servers else "",
        protocols=tuple(sorted(found.protocols)),
        authority=labels[series.AUTHORITY],
        tally=found.tally,
    )
