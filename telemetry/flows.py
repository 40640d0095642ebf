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
from telemetry.parties import (
    Party,
    is_address,
    of_destination,
    of_identity,
    of_source,
    passed_through,
    service_of,
)
from telemetry.reasons import svc_of
from telemetry.workloads import Inventory, PodFacts

TCP: Final = "TCP"
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
_DIRECTION: Final = _IDENTIFYING.index(series.DIR)
_AUTHORITY: Final = _IDENTIFYING.index(series.AUTHORITY)
# Of what came in, also the peer's identity: there it is a label of every series, outbound only of `rq`.
_CLIENT: Final = "client"
# Envoy's counters of bytes -> what they are to whoever opened the connection.
_CLUSTERS_BYTES: Final = {series.CLUSTER_SENT: series.RECEIVED, series.CLUSTER_RECEIVED: series.SENT}


@dataclass(slots=True)
class _Gathered:
    tally: Tally = field(default_factory=Tally)
    servers: Counter[str] = field(default_factory=Counter[str])
    protocols: set[str] = field(default_factory=set[str])

    def take(self, measure: str, added: Series) -> None:
        if measure == series.REQUESTS:
            self._count(added.labels, added.value)
        elif measure == series.RECEIVED:
            self.tally.received += added.value
        elif measure == series.SENT:
            self.tally.sent += added.value
        elif measure == series.REQUEST_US:
            self.tally.latency = self.tally.latency.plus(Histogram.of(added.buckets))

    def take_by_authority(self, added: Series) -> None:
        """Durations alone: there are as many requests."""
        durations = Histogram.of(added.buckets)
        self.tally.latency = self.tally.latency.plus(durations)
        self._count(added.labels, durations.total)

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
    bytes_of: dict[str, _Gathered] = defaultdict(_Gathered)
    for added in counted:
        if added.name in _CLUSTERS_BYTES:
            bytes_of[added.labels.get(series.CLUSTER, "")].take(_CLUSTERS_BYTES[added.name], added)
            continue
        measure = added.name.removeprefix(series.EXPOSED)
        if measure == added.name:
            continue
        key = [added.labels.get(label, "") for label in _IDENTIFYING]
        if key[_AUTHORITY]:
            gathered[*key, ""].take_by_authority(added)
            key[_AUTHORITY] = ""  # the same durations are those of the traffic as well
        inbound = key[_DIRECTION] == series.INBOUND
        gathered[*key, added.labels.get(series.PEER, "") if inbound else ""].take(measure, added)
    named = [dict(zip((*_IDENTIFYING, _CLIENT), key, strict=True)) for key in gathered]
    return (
        *(_flow(pod, labels, each, cluster) for labels, each in zip(named, gathered.values(), strict=True)),
        *_sent_bytes(pod, bytes_of, named, cluster),
    )


def _sent_bytes(
    pod: PodFacts, found: Mapping[str, _Gathered], counted: Iterable[Mapping[str, str]], cluster: Inventory
) -> Iterable[Flow]:
    """Flows that have nothing but bytes: a cluster knows what was dialled, and not which endpoint answered.

    What all requests to a Service had in common, a workload or a reason, its bytes have too.
    """
    common: dict[str, dict[str, set[str]]] = defaultdict(lambda: {series.DST: set(), series.REASON: set()})
    for labels in counted:
        for what, values in common[labels[series.SVC]].items():
            values.add(labels[what])
    for label, each in found.items():
        if svc := svc_of(label):
            shared = {what: values.pop() for what, values in common[svc].items() if len(values) == 1}
            nothing = dict.fromkeys((*_IDENTIFYING, _CLIENT), "")
            yield _sent(pod, {**nothing, series.SVC: svc, **shared}, each, cluster)


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
    # Bytes alone do not say whether there was a connection; without a reason they are TLS's.
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
