"""Where each workload stands in the picture: layers from clients to servers, the same for the same graph.

The method is Sugiyama's (IEEE SMC-11, 1981): cycles are broken, each node gets the layer of its longest way from a
client, edges over several layers get a bend in each, and a few sweeps put every node near its neighbours.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

NODE_WIDTH: Final = 180
NODE_HEIGHT: Final = 44
_COLUMN_GAP: Final = 116
_ROW_GAP: Final = 22
_PORT_STEP: Final = 12
_BEND_HEIGHT: Final = 18
_MARGIN: Final = 28
# Of a picture with more nodes and bends than that nobody can tell the difference, and each sweep costs.
_MANY: Final = 2000
_SWEEPS: Final = 6
_FEW_SWEEPS: Final = 2

Point = tuple[float, float]
# A node is its key; a bend of a long edge is (client, server, layer).
_Bend = tuple[str, str, int]
_Place = str | _Bend


@dataclass(frozen=True, slots=True)
class Route:
    """The way of an edge: an SVG path, and where its label stands."""

    client: str
    server: str
    path: str
    label: Point


@dataclass(frozen=True, slots=True)
class Layout:
    """The upper left corner of each node, the edges' ways, and the size of the whole picture; in pixels."""

    nodes: Mapping[str, Point]
    routes: tuple[Route, ...]
    width: float
    height: float


def arrange(edges: Iterable[tuple[str, str]]) -> Layout:
    """The picture of the nodes that have an edge; the order of the edges does not matter."""
    pairs = set(edges)
    wanted = sorted((client, server) for client, server in pairs if client != server)
    loops = sorted(client for client, server in pairs if client == server)
    known = sorted({node for pair in pairs for node in pair})
    back = _back_edges(known, wanted)
    forward = [(server, client) if (client, server) in back else (client, server) for client, server in wanted]
    layer = _layers(known, forward)
    columns, chains = _with_bends(layer, sorted(set(forward)))
    _untangle(columns, chains)
    places, width, height = _coordinates(columns)
    ports = _ports(wanted, back, chains, places)
    routes = [_route(edge, edge in back, chains, places, ports) for edge in wanted]
    routes += [_loop(node, places) for node in loops]
    corners = {place: point for place, point in places.items() if isinstance(place, str)}
    return Layout(corners, tuple(routes), width, height)


def _back_edges(nodes: Sequence[str], edges: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """The edges that close a cycle, found by a depth-first walk in the order of the names."""
    following: dict[str, list[str]] = {node: [] for node in nodes}
    fed: set[str] = set()
    for client, server in edges:
        following[client].append(server)
        fed.add(server)
    done: set[str] = set()
    back: set[tuple[str, str]] = set()
    # Pure clients first: what they reach is "forward".
    for root in sorted(nodes, key=lambda node: (node in fed, node)):
        if root in done:
            continue
        open_nodes = {root}
        stack = [(root, iter(following[root]))]
        while stack:
            node, rest = stack[-1]
            server = next(rest, None)
            if server is None:
                stack.pop()
                open_nodes.discard(node)
                done.add(node)
            elif server in open_nodes:
                back.add((node, server))
            elif server not in done:
                open_nodes.add(server)
                stack.append((server, iter(following[server])))
    return back


def _layers(nodes: Sequence[str], forward: Sequence[tuple[str, str]]) -> dict[str, int]:
    """The longest way to each node; `forward` has no cycle."""
    following: dict[str, list[str]] = {node: [] for node in nodes}
    waiting = dict.fromkeys(nodes, 0)
    for client, server in forward:
        following[client].append(server)
        waiting[server] += 1
    layer = dict.fromkeys(nodes, 0)
    ready = [node for node in nodes if not waiting[node]]
    for node in ready:
        for server in following[node]:
            layer[server] = max(layer[server], layer[node] + 1)
            waiting[server] -= 1
            if not waiting[server]:
                ready.append(server)
    return layer


_Chains = dict[tuple[str, str], list[_Place]]


def _with_bends(layer: Mapping[str, int], forward: Sequence[tuple[str, str]]) -> tuple[list[list[_Place]], _Chains]:
    """The columns with the bends of the long edges in them, and the places that each edge goes through."""
    columns: list[list[_Place]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for node in sorted(layer):
        columns[layer[node]].append(node)
    chains: _Chains = {}
    for client, server in forward:
        bends: list[_Place] = [(client, server, step) for step in range(layer[client] + 1, layer[server])]
        for step, bend in enumerate(bends, layer[client] + 1):
            columns[step].append(bend)
        chains[client, server] = [client, *bends, server]
    return columns, chains


def _untangle(columns: list[list[_Place]], chains: _Chains) -> None:
    """Sorts each column by the mean place of its neighbours in the next one, to and fro."""
    before: dict[_Place, list[_Place]] = {}
    after: dict[_Place, list[_Place]] = {}
    for chain in chains.values():
        for one, other in pairwise(chain):
            after.setdefault(one, []).append(other)
            before.setdefault(other, []).append(one)
    many = sum(map(len, columns)) > _MANY
    for sweep in range(_FEW_SWEEPS if many else _SWEEPS):
        down = sweep % 2 == 0
        neighbours = before if down else after
        order = range(1, len(columns)) if down else range(len(columns) - 2, -1, -1)
        for number in order:
            beside = columns[number - 1 if down else number + 1]
            # Relative to the column's length: columns of different length are centred on each other.
            position = {place: (index + 0.5) / len(beside) for index, place in enumerate(beside)}
            column = columns[number]
            own = {place: (index + 0.5) / len(column) for index, place in enumerate(column)}

            def weight(
                place: _Place, own: dict[_Place, float] = own, position: dict[_Place, float] = position,
                neighbours: dict[_Place, list[_Place]] = neighbours,
            ) -> tuple[float, float]:  # fmt: skip
                near = [position[each] for each in neighbours.get(place, ()) if each in position]
                return (sum(near) / len(near) if near else own[place], own[place])

            column.sort(key=weight)


def _coordinates(columns: Sequence[Sequence[_Place]]) -> tuple[dict[_Place, Point], float, float]:
    """The upper left corner of every node and the point of every bend; width and height of the picture."""
    heights = [sum(_height(place) + _ROW_GAP for place in column) - _ROW_GAP for column in columns]
    tallest = max(heights, default=0)
    places: dict[_Place, Point] = {}
    for number, column in enumerate(columns):
        x = _MARGIN + number * (NODE_WIDTH + _COLUMN_GAP)
        y = _MARGIN + (tallest - heights[number]) / 2
        for place in column:
            places[place] = (x, y)
            y += _height(place) + _ROW_GAP
    width = 2 * _MARGIN + len(columns) * (NODE_WIDTH + _COLUMN_GAP) - (_COLUMN_GAP if columns else 0)
    return places, width, tallest + 2 * _MARGIN


def _height(place: _Place) -> int:
    return NODE_HEIGHT if isinstance(place, str) else _BEND_HEIGHT


# Where an edge leaves or enters a box, from the middle of its side: (edge, box) -> pixels.
_Ports = dict[tuple[tuple[str, str], str], float]


def _ports(
    edges: Sequence[tuple[str, str]], back: set[tuple[str, str]], chains: _Chains, places: Mapping[_Place, Point]
) -> _Ports:
    """Edges at the same side of a box are spread over it, in the order of where they come from or go to."""
    sides: dict[tuple[str, bool], list[tuple[float, tuple[str, str]]]] = {}
    for edge in edges:
        chain = chains[_reversed(edge) if edge in back else edge]
        for box, beside, right in ((chain[0], chain[1], True), (chain[-1], chain[-2], False)):
            assert isinstance(box, str)
            sides.setdefault((box, right), []).append((places[beside][1], edge))
    found: _Ports = {}
    for (box, _), uses in sides.items():
        step = min(_PORT_STEP, (NODE_HEIGHT - 12) / len(uses))
        for index, (_, edge) in enumerate(sorted(uses)):
            found[edge, box] = (index - (len(uses) - 1) / 2) * step
    return found


def _reversed(edge: tuple[str, str]) -> tuple[str, str]:
    return edge[1], edge[0]


def _route(
    edge: tuple[str, str], reverse: bool, chains: _Chains, places: Mapping[_Place, Point], ports: _Ports
) -> Route:
    chain = chains[_reversed(edge) if reverse else edge]
    points: list[Point] = []
    for place in chain:
        x, y = places[place]
        middle = y + _height(place) / 2 + (ports[edge, place] if isinstance(place, str) else 0)
        if place != chain[0]:
            points.append((x, middle))
        if place != chain[-1]:
            points.append((x + NODE_WIDTH, middle))
    if reverse:
        points.reverse()
    path = f"M{points[0][0]:.0f} {points[0][1]:.1f}"
    for one, other in pairwise(points):
        bow = (other[0] - one[0]) / 2
        path += f"C{one[0] + bow:.0f} {one[1]:.1f} {other[0] - bow:.0f} {other[1]:.1f} {other[0]:.0f} {other[1]:.1f}"
    one, other = points[-2], points[-1]
    # Against the stream it stands nearer to the client, beside the label of the edge that it may lie next to.
    share = 0.2 if reverse else 0.5
    return Route(*edge, path, (one[0] + (other[0] - one[0]) * share, one[1] + (other[1] - one[1]) * share))


def _loop(node: str, places: Mapping[_Place, Point]) -> Route:
    """An edge of a node to itself: a small bow above it."""
    x, y = places[node]
    left, right = x + NODE_WIDTH * 0.6, x + NODE_WIDTH * 0.85
    path = f"M{left:.0f} {y:.1f}C{left:.0f} {y - 24:.1f} {right:.0f} {y - 24:.1f} {right:.0f} {y:.1f}"
    return Route(node, node, path, ((left + right) / 2, y - 18))
