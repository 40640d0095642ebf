"""All flows of a window, found by who counted them and where they went, each connection counted once. Pure.

docs/telemetry.md defines it for operators. A mutual TLS connection counts where it arrives, at the server's proxy. A
plaintext one arrives there too where inbound is `observed`; where it is `direct` it passes no proxy of the server, and
the proxy of a meshed client is the only witness. What a client without a proxy sends past a proxy nobody counts.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from mesh.reasons import Plaintext
from telemetry.flows import Flow, Tally
from telemetry.parties import NODE, Party, address_of
from telemetry.workloads import Inventory, PodFacts

# What a client's proxy says of servers whose own proxy cannot have seen the connection.
_PAST_THE_SERVERS_PROXY = frozenset({Plaintext.NOT_MESHED, Plaintext.SKIPPED_PORT})


@dataclass(slots=True)
class Traffic:
    """The traffic of one row. Units are requests for HTTP and connections otherwise."""

    total: Tally = field(default_factory=Tally)
    tls: float = 0.0  # units by mutual TLS
    plaintext: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # units by reason
    peers: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # the same by the other end's name
    probes: float = 0.0  # the kubelet's connections, in none of the above

    @property
    def units(self) -> float:
        return self.total.units

    @property
    def tls_share(self) -> float | None:
        """0..1 of what was delivered; None where nothing was."""
        delivered = self.tls + sum(self.plaintext.values())
        return self.tls / delivered if delivered else None

    def add(self, flow: Flow, peer: Party, reason: str) -> None:
        self.total.add(flow.tally)
        if flow.tls:
            self.tls += flow.tally.units
        elif flow.tally.units and not flow.undelivered:
            self.plaintext[reason] += flow.tally.units
            self.peers[peer.name] += flow.tally.units


@dataclass(frozen=True, slots=True)
class Ledger:
    """The flows of a window over the cluster that they were counted in."""

    cluster: Inventory
    inbound: Mapping[str, tuple[Flow, ...]]  # pod (`namespace/name`) -> what its proxy counted
    outbound: Mapping[str, tuple[Flow, ...]]
    witnessed: Mapping[str, tuple[Flow, ...]]  # server's name -> not by TLS, and counted by the client's proxy alone
    by_authority: tuple[Flow, ...]
    reasons: Mapping[tuple[str, str], str]  # client's pod and server's name -> the client's reason for plaintext

    def flows(self) -> Iterable[Flow]:
        """All of them."""
        return chain(*self.inbound.values(), *self.outbound.values(), self.by_authority)

    def received(self, pods: Sequence[PodFacts], elsewhere: Iterable[str] = ()) -> Traffic:
        """What these pods received, and with them the servers named in `elsewhere` (a Service of many workloads)."""
        found = Traffic()
        for pod in pods:
            for flow in self.inbound.get(pod.key, ()):
                if is_probe(flow):
                    found.probes += flow.tally.units
                else:
                    found.add(flow, flow.client, self.reason_of(flow))
        for name in (*self.whole(pods), *elsewhere):
            for flow in self.witnessed.get(name, ()):
                found.add(flow, flow.client, flow.reason)
        return found

    def whole(self, pods: Sequence[PodFacts]) -> Iterable[str]:
        """The workloads all of whose pods are among these: only then what was sent to one is known to be theirs."""
        keys = {pod.key for pod in pods}
        for name in dict.fromkeys(str(pod.workload) for pod in pods):
            if all(pod.key in keys for pod in self.cluster.by_workload.get(name, ())):
                yield name

    def outside_workloads(self, namespace: str) -> Iterable[str]:
        """The servers of a namespace that are no workload with pods: Services of several, and what has gone since."""
        for name, flows in self.witnessed.items():
            if flows[0].server.namespace == namespace and name not in self.cluster.by_workload:
                yield name

    def sent(self, pods: Iterable[PodFacts], to: "Destination | None" = None) -> Traffic:
        """What the proxies of these pods sent, all or to one destination. All of it passed them: nothing is unseen."""
        found = Traffic()
        for pod in pods:
            for flow in self.outbound.get(pod.key, ()):
                if to is None or to.takes(flow):
                    found.add(flow, flow.server, flow.reason)
        return found

    def reason_of(self, flow: Flow) -> str:
        """Why a connection was plaintext. A server's proxy sees an address and no reason: the client's knows it."""
        if flow.tls or not flow.inbound:
            return flow.reason
        pod = flow.client.pod
        if pod is None or not pod.meshed:
            return Plaintext.NOT_MESHED
        if not pod.redirected:
            return Plaintext.NO_REDIRECT
        return self.reasons.get((pod.key, flow.server.name), Plaintext.TLS_FAILED)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a flow must go to: to any of these servers, to that Service, to whatever is in that namespace, or to that
    address outside of the cluster."""

    names: frozenset[str] = frozenset()
    service: str = ""
    namespace: str = ""
    address: str = ""

    def takes(self, flow: Flow) -> bool:
        if self.service:
            return flow.service == self.service
        if self.namespace:
            return flow.server.namespace == self.namespace
        if self.address:
            return address_of(flow.server.name) == self.address
        return flow.server.name in self.names


def ledger(flows: Iterable[Flow], cluster: Inventory) -> Ledger:
    inbound: dict[str, list[Flow]] = defaultdict(list)
    outbound: dict[str, list[Flow]] = defaultdict(list)
    witnessed: dict[str, list[Flow]] = defaultdict(list)
    by_authority: list[Flow] = []
    reasons: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for flow in flows:
        if flow.authority:
            by_authority.append(flow)
        elif flow.inbound:
            inbound[flow.seen_by.key].append(flow)
        else:
            outbound[flow.seen_by.key].append(flow)
            if not flow.tls:
                if flow.reason:
                    reasons[flow.seen_by.key, flow.server.name][flow.reason] += round(flow.tally.units)
                if not _counted_by_server(flow, cluster):
                    witnessed[flow.server.name].append(flow)
    return Ledger(
        cluster=cluster,
        inbound=_frozen(inbound),
        outbound=_frozen(outbound),
        witnessed=_frozen(witnessed),
        by_authority=tuple(by_authority),
        reasons={key: counted.most_common(1)[0][0] for key, counted in reasons.items()},
    )


def _frozen(lists: Mapping[str, list[Flow]]) -> dict[str, tuple[Flow, ...]]:
    return {key: tuple(value) for key, value in lists.items()}


def is_probe(flow: Flow) -> bool:
    """The kubelet's own: from the node, to a port that it probes. Others from the node may be masqueraded clients."""
    return flow.inbound and flow.client == NODE and flow.port in flow.seen_by.probed_ports


def _counted_by_server(flow: Flow, cluster: Inventory) -> bool:
    """Whether the server's proxy counts the same plaintext connection.

    In a workload that is only partly `observed` (a rollout) this cannot be told for each connection: the client's count
    is taken unless every meshed pod observes.
    """
    if flow.undelivered or flow.reason in _PAST_THE_SERVERS_PROXY:
        return False
    meshed = [pod for pod in cluster.by_workload.get(flow.server.name, ()) if pod.meshed]
    return bool(meshed) and all(pod.observed for pod in meshed)
