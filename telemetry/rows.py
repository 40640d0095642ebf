"""The table of `autotls stat` as values: a row for each object of a kind, with the traffic that it received. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from telemetry.flows import Flow
from telemetry.ledger import Destination, Ledger, Traffic
from telemetry.workloads import Inventory, PodFacts


class Kind(StrEnum):
    """What a row can stand for."""

    DEPLOYMENT = "deployment"
    STATEFULSET = "statefulset"
    DAEMONSET = "daemonset"
    REPLICASET = "replicaset"
    JOB = "job"
    CRONJOB = "cronjob"
    POD = "pod"
    NAMESPACE = "namespace"
    SERVICE = "service"
    AUTHORITY = "authority"


@dataclass(frozen=True, slots=True)
class Row:
    """One object. `meshed` of `total` pods have a proxy that runs; None where the object has no pods of its own.

    `unseen`: plaintext may have reached it that no proxy counted, so `traffic` is not the whole.
    """

    namespace: str
    name: str
    meshed: int | None
    total: int | None
    traffic: Traffic
    unseen: bool


@dataclass(frozen=True, slots=True)
class Table:
    """Rows in the order of their names; `seconds` is how long was counted."""

    kind: Kind
    rows: tuple[Row, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows: of one namespace (None: all), of these names (empty: all)."""

    namespace: str | None = None
    names: tuple[str, ...] = ()

    def takes(self, namespace: str, name: str) -> bool:
        return self.namespace in (None, namespace) and (not self.names or name in self.names)


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end, as `--to` and `--from` name it. `kind` is None for an address outside of the cluster."""

    kind: Kind | None
    namespace: str
    name: str


EVERYTHING = Selection()
Groups = Mapping[tuple[str, str], tuple[PodFacts, ...]]


def table(
    kind: Kind,
    book: Ledger,
    seconds: float,
    selection: Selection = EVERYTHING,
    *,
    to: Peer | None = None,
    sent_by: Peer | None = None,
) -> Table:
    """What the objects of `kind` received; with `to`, what they sent there; with `sent_by`, what came from there.

    The latter two look at what clients' proxies counted, which is all of it. Services and authorities are what clients
    name, so these rows always do; `to` has no meaning for them.
    """
    if kind is Kind.SERVICE:
        rows = _services(book, selection, sent_by)
    elif kind is Kind.AUTHORITY:
        rows = _authorities(book, selection, sent_by)
    else:
        rows = _workloads(kind, book, selection, to, sent_by)
    return Table(kind, tuple(sorted(rows, key=lambda row: (row.namespace, row.name))), seconds)


def groups(kind: Kind, cluster: Inventory) -> Groups:
    """Namespace and name -> pods, of every object of that kind that has pods; a namespace is in no other."""
    found: dict[tuple[str, str], list[PodFacts]] = defaultdict(list)
    for pod in cluster.pods:
        if kind is Kind.NAMESPACE:
            found["", pod.namespace].append(pod)
        else:
            for owner in pod.owners:
                if owner.kind == kind:
                    found[owner.namespace, owner.name].append(pod)
    return {key: tuple(pods) for key, pods in found.items()}


def pods_of(peer: Peer, cluster: Inventory) -> tuple[PodFacts, ...]:
    """The pods of that object; none when it is not there."""
    if peer.kind is None:
        return ()
    if peer.kind is Kind.SERVICE:
        chosen = next((s.pods for s in cluster.services if (s.namespace, s.name) == (peer.namespace, peer.name)), ())
        return tuple(pod for pod in cluster.pods if pod.key in chosen)
    namespace = "" if peer.kind is Kind.NAMESPACE else peer.namespace
    return groups(peer.kind, cluster).get((namespace, peer.name), ())


def destination_of(peer: Peer, book: Ledger) -> Destination:
    """What clients' proxies call that object. Empty when they cannot tell it from others: they count by workload."""
    if peer.kind is None:
        return Destination(address=peer.name)
    if peer.kind is Kind.NAMESPACE:
        return Destination(namespace=peer.name)
    if peer.kind is Kind.SERVICE:
        return Destination(service=f"{peer.namespace}/{peer.name}")
    return Destination(frozenset(book.whole(pods_of(peer, book.cluster))))


def _workloads(kind: Kind, book: Ledger, selection: Selection, to: Peer | None, sent_by: Peer | None) -> Iterable[Row]:
    destination = destination_of(to, book) if to else None
    sources = pods_of(sent_by, book.cluster) if sent_by else None
    for (namespace, name), pods in groups(kind, book.cluster).items():
        if not selection.takes(namespace or selection.namespace or "", name):
            continue
        if destination is not None:
            traffic, unseen = book.sent(pods, destination), False
        elif sources is not None:
            traffic, unseen = book.sent(sources, destination_of(Peer(kind, namespace, name), book)), False
        else:
            elsewhere = book.outside_workloads(name) if kind is Kind.NAMESPACE else ()
            traffic, unseen = book.received(pods, elsewhere), not all(pod.sees_all for pod in pods)
        yield Row(namespace, name, sum(pod.meshed for pod in pods), len(pods), traffic, unseen)


def _services(book: Ledger, selection: Selection, sent_by: Peer | None) -> Iterable[Row]:
    found: dict[str, Traffic] = defaultdict(Traffic)
    for flow in _sent(book, sent_by):
        if flow.service:
            found[flow.service].add(flow, flow.client, flow.reason)
    pods = {pod.key: pod for pod in book.cluster.pods}
    for service in book.cluster.services:
        if selection.takes(service.namespace, service.name):
            behind = [pods[key] for key in service.pods]
            meshed = sum(pod.meshed for pod in behind)
            yield Row(service.namespace, service.name, meshed, len(behind), found[service.key], sent_by is None)


def _authorities(book: Ledger, selection: Selection, sent_by: Peer | None) -> Iterable[Row]:
    senders = {pod.key for pod in pods_of(sent_by, book.cluster)} if sent_by else None
    found: dict[tuple[str, str], Traffic] = defaultdict(Traffic)
    for flow in book.by_authority:
        if senders is None or flow.seen_by.key in senders:
            found[flow.server.namespace, flow.authority].add(flow, flow.client, flow.reason)
    for (namespace, name), traffic in found.items():
        if selection.takes(namespace, name):
            yield Row(namespace, name, None, None, traffic, sent_by is None)


def _sent(book: Ledger, sent_by: Peer | None) -> Iterable[Flow]:
    pods = book.cluster.pods if sent_by is None else pods_of(sent_by, book.cluster)
    for pod in pods:
        yield from book.outbound.get(pod.key, ())
