"""From what the proxies counted to what the pages show; numbers and words are those of telemetry. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from dashboard.memory import History, Scrapes
from dashboard.model import Certificate, Edge, Figures, NamespaceRow, Snapshot, Workload
from mesh.config import MeshConfig, parse_duration
from telemetry.edges import Edge as SeenEdge
from telemetry.edges import edges
from telemetry.exposition import UPTIME, Samples, Series, series_of
from telemetry.ledger import Ledger
from telemetry.measurement import is_truncated, listed, measurement
from telemetry.rows import Kind, Row, table
from telemetry.window import UPTIME_LAG_S, increase
from telemetry.workloads import Inventory, PodFacts

MESH: Final = ""
# `{envoy_tls_certificate="leaf",…}` and the same of "roots", the names in proxy/sds/.
_LEAF_ENDS: Final = b"envoy_listener_ssl_certificate_expiration_unix_time_seconds{"
_ENDS: Final = {b"autotls_ca_root_not_after_seconds": "root", b"autotls_ca_issuer_not_after_seconds": "issuer"}
_UNSEEN: Final = (
    "* plaintext from clients without a proxy is not counted here, because it passes no proxy that counts it: "
    "set config.autotls.io/inbound: observed to count it"
)


@dataclass(frozen=True, slots=True)
class Found:
    """What a window held: the increases of each pod's proxy, how long was counted, and whose series were cut off."""

    counted: Mapping[str, Sequence[Series]]
    seconds: float
    truncated: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Round:
    """One look at everything. `failures` are by pod (`namespace/name`), `leaves` (Unix time of their end) by uid."""

    at: datetime
    cluster: Inventory
    found: Found
    failures: Mapping[str, str]
    leaves: Mapping[str, float]
    authority: Mapping[str, float]
    config: MeshConfig


def certificates(samples: Samples) -> dict[str, float]:
    """`leaf` of a proxy, `root` and `issuer` of the CA, as far as `samples` tell when they end (Unix time)."""
    found: dict[str, float] = {}
    for key, value in samples.items():
        role = _ENDS.get(key)
        if role is not None and value > 0:  # a replica that does not lead has nothing to say and says 0
            found[role] = value
        elif key.startswith(_LEAF_ENDS) and b'"leaf"' in key:
            found["leaf"] = value
    return found


def counted_in(scrapes: Scrapes, proxies: Iterable[PodFacts], now: float) -> Found:
    """What each proxy counted within the window of `scrapes` that ends now."""
    added: dict[str, Sequence[Series]] = {}
    spans: list[float] = []
    truncated: list[str] = []
    for pod in proxies:
        ends = scrapes.window(pod.uid, now)
        if ends is None:
            continue
        before, after = ends
        # Without a look from before: what a proxy counted that started within the window is all new.
        newborn = after.samples.get(UPTIME, scrapes.window_s) + UPTIME_LAG_S < scrapes.window_s
        added[pod.key] = series_of(increase(before, after, newborn=newborn) or {})
        if before is not None:
            spans.append(after.at - before.at)
        if is_truncated(after.samples):
            truncated.append(pod.key)
    return Found(added, sum(spans) / len(spans) if spans else 0.0, tuple(sorted(truncated)))


def summary(look: Round, history: History) -> Snapshot:
    """The snapshot of a round; `history` gets one more value of each workload."""
    seconds = look.found.seconds
    book = measurement(look.cluster, look.found.counted, seconds).book
    namespaces = [row for row in table(Kind.NAMESPACE, book, seconds).rows if row.meshed or row.traffic.units]
    here = frozenset(row.name for row in namespaces)
    rows = {key: _row(book, pods) for key, pods in _by_workload(look.cluster, here).items()}
    everything = _row(book, [pod for pod in look.cluster.pods if pod.namespace in here])
    shown = {key: figures(row, seconds) for key, row in rows.items()} | {MESH: figures(everything, seconds)}
    if seconds:
        history.rates.add({key: each.rps or 0.0 for key, each in shown.items()})
        history.shares.add({key: each.tls for key, each in shown.items() if each.tls is not None})
    return Snapshot(
        taken_at=look.at,
        window_s=seconds,
        mesh=shown[MESH],
        workloads=tuple(_workload(key, shown[key], history) for key in sorted(rows)),
        namespaces=tuple(NamespaceRow(row.name, figures(row, seconds)) for row in namespaces),
        edges=tuple(_edge(seen, seconds) for seen in edges(book, kind=None)),
        certificates=_certificates(look),
        notes=_notes(look, any(each.unseen for each in shown.values())),
        rps_trend=history.rates.of(MESH),
        tls_trend=history.shares.of(MESH),
    )


def _by_workload(cluster: Inventory, namespaces: frozenset[str]) -> dict[str, list[PodFacts]]:
    found: dict[str, list[PodFacts]] = {}
    for pod in cluster.pods:
        if pod.namespace in namespaces:
            found.setdefault(str(pod.workload), []).append(pod)
    return found


def _row(book: Ledger, pods: Sequence[PodFacts]) -> Row:
    """As telemetry.rows makes it for one object."""
    meshed, unseen = sum(pod.meshed for pod in pods), not all(pod.sees_all for pod in pods)
    return Row("", "", meshed, len(pods), book.received(pods), unseen)


def figures(row: Row, seconds: float) -> Figures:
    """The columns of `stat` for a row of which `seconds` were counted."""
    total, units = row.traffic.total, row.traffic.units
    p50, p95, p99 = (total.latency.quantile(q) for q in (0.5, 0.95, 0.99))
    return Figures(
        meshed=row.meshed or 0,
        pods=row.total or 0,
        success=total.succeeded / total.requests if total.requests else None,
        rps=total.requests / seconds if total.requests and seconds else None,
        p50_us=p50,
        p95_us=p95,
        p99_us=p99,
        tls=row.traffic.tls_share,
        unseen=row.unseen and row.traffic.tls_share is not None,
        reasons=shares_of(row.traffic.plaintext, units),
    )


def shares_of(plaintext: Mapping[str, float], units: float) -> tuple[tuple[str, float], ...]:
    """Each reason's share of everything seen, the largest first."""
    ordered = sorted(plaintext.items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple((reason, count / units) for reason, count in ordered if count > 0)


def _workload(key: str, shown: Figures, history: History) -> Workload:
    namespace, kind, name = key.split("/", 2)
    return Workload(key, namespace, kind, name, shown, history.rates.of(key), history.shares.of(key))


def _edge(seen: SeenEdge, seconds: float) -> Edge:
    traffic = seen.traffic
    return Edge(
        seen.client.name,
        seen.server.name,
        ", ".join(sorted(seen.client_identities)),
        ", ".join(sorted(seen.server_identities)),
        tls=traffic.tls_share,
        rate=traffic.units / seconds if seconds else None,
        reasons=shares_of(traffic.plaintext, traffic.units),
    )


def _certificates(look: Round) -> tuple[Certificate, ...]:
    """Leaves by identity and end, so that a proxy that is behind has a line of its own; those that end first, first."""
    lifetimes = look.config.identity
    holders = Counter((pod.identity, look.leaves[pod.uid]) for pod in look.cluster.pods if pod.uid in look.leaves)
    lifetime = parse_duration(lifetimes.leaf_lifetime).total_seconds()
    found = [
        Certificate("leaf", identity, _date(until), lifetime, count) for (identity, until), count in holders.items()
    ]
    text = {"root": lifetimes.root_lifetime, "issuer": lifetimes.issuer_lifetime}
    found += [
        Certificate(role, f"autotls {role}", _date(until), parse_duration(text[role]).total_seconds())
        for role, until in look.authority.items()
    ]
    return tuple(sorted(found, key=lambda each: (each.not_after, each.role, each.subject)))


def _date(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _notes(look: Round, unseen: bool) -> tuple[str, ...]:
    notes = [_UNSEEN] if unseen else []
    if look.failures:
        words = [f"{key} ({why})" for key, why in sorted(look.failures.items())]
        proxies = sum(pod.meshed for pod in look.cluster.pods)
        notes.append(f"{len(words)} of {proxies} proxies did not answer: {listed(words)}")
    if look.found.truncated:
        which = listed(look.found.truncated)
        notes.append(
            f"{len(look.found.truncated)} proxies reached their limit of series and left something out: {which}"
        )
    return tuple(notes)
