"""What each page shows of a snapshot: filtered, sorted and summed. Pure; `dashboard.pages` draws it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dashboard.model import Edge, Figures, Security, Snapshot, Workload
from dashboard.topology import NODE_HEIGHT, NODE_WIDTH, Layout, Point, Route, arrange

# A picture with more workloads than this cannot be read: namespaces are drawn instead, and one can be opened.
MAX_NODES: Final = 60
# What the overview lists; the other pages have all.
_MAX_PLAINTEXT_EDGES: Final = 8


@dataclass(frozen=True, slots=True)
class Choice:
    """What the reader asked for, from the query of the address; anything unknown means the default."""

    namespace: str = ""
    text: str = ""
    sort: str = "name"
    by: str = ""

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> "Choice":
        sort = query.get("sort", "")
        return cls(
            namespace=query.get("namespace", "")[:253],
            text=query.get("q", "").strip().lower()[:100],
            sort=sort if sort.removeprefix("-") in _SORTS else "name",
            by=query.get("by", "") if query.get("by") in ("workload", "namespace") else "",
        )


def _or_lowest(value: float | None) -> float:
    return -1.0 if value is None else value


_SORTS: Final[Mapping[str, Callable[[Workload], float]]] = {
    "name": lambda _: 0.0,
    "meshed": lambda row: row.figures.meshed / row.figures.pods if row.figures.pods else -1.0,
    "success": lambda row: _or_lowest(row.figures.success),
    "rps": lambda row: _or_lowest(row.figures.rps),
    "p50": lambda row: _or_lowest(row.figures.p50_us),
    "p95": lambda row: _or_lowest(row.figures.p95_us),
    "p99": lambda row: _or_lowest(row.figures.p99_us),
    "tls": lambda row: _or_lowest(row.figures.tls),
}


def chosen(snapshot: Snapshot, choice: Choice) -> tuple[Workload, ...]:
    """The workloads that the filters let through, in the chosen order; equal ones by name."""
    rows = [
        row
        for row in snapshot.workloads
        if (not choice.namespace or row.namespace == choice.namespace) and choice.text in row.key.lower()
    ]
    rows.sort(key=lambda row: (row.namespace, row.name, row.kind))
    if choice.sort == "-name":
        rows.reverse()
    elif choice.sort != "name":
        weigh = _SORTS[choice.sort.removeprefix("-")]
        rows.sort(key=weigh, reverse=choice.sort.startswith("-"))
    return tuple(rows)


def plaintext_edges(snapshot: Snapshot) -> tuple[Edge, ...]:
    """The busiest edges that were not all mutual TLS."""
    seen = [edge for edge in snapshot.edges if Security.of(edge.tls) in (Security.MIXED, Security.PLAINTEXT)]
    seen.sort(key=lambda edge: (-(edge.rate or 0.0) * (1 - (edge.tls or 0.0)), edge.client, edge.server))
    return tuple(seen[:_MAX_PLAINTEXT_EDGES])


@dataclass(frozen=True, slots=True)
class Node:
    """A box of the picture. `href` leads to its page; empty where there is none."""

    key: str
    title: str
    subtitle: str
    at: Point
    security: Security
    figures: Figures | None
    href: str


@dataclass(frozen=True, slots=True)
class Arrow:
    """An edge of the picture with what it says."""

    edge: Edge
    route: Route
    security: Security


@dataclass(frozen=True, slots=True)
class Picture:
    """The topology as it is drawn; `grouped` when its boxes are namespaces."""

    nodes: tuple[Node, ...]
    arrows: tuple[Arrow, ...]
    width: float
    height: float
    grouped: bool
    quiet: tuple[Workload, ...] = ()
    node_width: int = NODE_WIDTH
    node_height: int = NODE_HEIGHT


def edges_of(snapshot: Snapshot, choice: Choice) -> tuple[Edge, ...]:
    """The edges that touch the chosen namespace, or all."""
    if not choice.namespace:
        return snapshot.edges
    return tuple(
        edge for edge in snapshot.edges if choice.namespace in (_namespace(edge.client), _namespace(edge.server))
    )


def picture(snapshot: Snapshot, choice: Choice) -> Picture:
    """The topology of the chosen namespace or of all; by namespace where it would be too large to read."""
    edges = edges_of(snapshot, choice)
    linked = {key for edge in edges for key in (edge.client, edge.server)}
    grouped = choice.by == "namespace" or (not choice.by and not choice.namespace and len(linked) > MAX_NODES)
    if grouped:
        edges = _summed(edges)
    layout = arrange((edge.client, edge.server) for edge in edges)
    figures = {row.name: row.figures for row in snapshot.namespaces}
    figures |= {row.key: row.figures for row in snapshot.workloads}
    ways = {(route.client, route.server): route for route in layout.routes}
    quiet = () if grouped else tuple(row for row in chosen(snapshot, choice) if row.key not in linked)
    return Picture(
        nodes=_nodes(layout, figures, grouped),
        arrows=tuple(Arrow(edge, ways[edge.client, edge.server], Security.of(edge.tls)) for edge in edges),
        width=layout.width,
        height=layout.height,
        grouped=grouped,
        quiet=quiet,
    )


def _nodes(layout: Layout, figures: Mapping[str, Figures], grouped: bool) -> tuple[Node, ...]:
    nodes: list[Node] = []
    for key, at in layout.nodes.items():
        known = figures.get(key)
        if grouped:
            href = f"/topology?namespace={key}" if known else ""
            title, subtitle = key, "namespace" if known else "outside"
        else:
            namespace, kind, name = [*key.split("/", 2), "", ""][:3]
            href = f"/workloads/{key}" if known else ""
            title, subtitle = (name, f"{namespace} · {kind}") if kind else (key, "outside")
        nodes.append(Node(key, title, subtitle, at, Security.of(known.tls if known else None), known, href))
    return tuple(nodes)


def _namespace(key: str) -> str:
    return key.partition("/")[0]


def _summed(edges: Iterable[Edge]) -> tuple[Edge, ...]:
    """Edges between namespaces: rates added, shares weighted by them."""
    sums: dict[tuple[str, str], list[Edge]] = {}
    for edge in edges:
        sums.setdefault((_namespace(edge.client), _namespace(edge.server)), []).append(edge)
    return tuple(_sum(client, server, group) for (client, server), group in sorted(sums.items()))


def _sum(client: str, server: str, group: list[Edge]) -> Edge:
    seen = [(edge.tls, edge.rate or 0.0) for edge in group if edge.tls is not None]
    weight = sum(rate for _, rate in seen)
    if not seen:
        share = None
    elif weight:
        share = sum(tls * rate for tls, rate in seen) / weight
    else:
        share = sum(tls for tls, _ in seen) / len(seen)
    return Edge(client, server, tls=share, rate=sum(edge.rate or 0.0 for edge in group))


@dataclass(frozen=True, slots=True)
class Detail:
    """One workload with whom it serves and whom it calls."""

    workload: Workload
    clients: tuple[Edge, ...]
    servers: tuple[Edge, ...]


def detail(snapshot: Snapshot, key: str) -> Detail | None:
    """None when there is no such workload."""
    for workload in snapshot.workloads:
        if workload.key == key:
            clients = tuple(edge for edge in snapshot.edges if edge.server == key)
            servers = tuple(edge for edge in snapshot.edges if edge.client == key)
            return Detail(workload, clients, servers)
    return None


def by_section(items: Iterable[Any]) -> dict[str, list[Any]]:
    """Checks under their headings, in the order in which they ran."""
    sections: dict[str, list[Any]] = {}
    for item in items:
        sections.setdefault(item.section, []).append(item)
    return sections
