"""What the pages show of a snapshot, and where each workload stands in the picture."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard import views
from dashboard.model import Edge, Security
from dashboard.topology import NODE_HEIGHT, NODE_WIDTH, arrange
from dashboard.views import Choice
from tests.dashboard import meshes

SHOP = meshes.shop()
NODES = st.integers(0, 12).map(lambda number: f"shop/deployment/{number}")
EDGES = st.lists(st.tuples(NODES, NODES), max_size=40)


@pytest.mark.parametrize(
    ("share", "security"),
    [
        (None, Security.UNKNOWN),
        (0.0, Security.PLAINTEXT),
        (0.0001, Security.MIXED),
        (0.9999, Security.MIXED),
        (1.0, Security.TLS),
    ],
)
def test_only_all_of_it_is_mutual_tls_and_nothing_seen_is_neither(share: float | None, security: Security) -> None:
    assert Security.of(share) is security


def test_workloads_are_filtered_by_namespace_and_by_part_of_the_name() -> None:
    found = views.chosen(SHOP, Choice(namespace="shop", text="c"))
    assert [row.name for row in found] == ["cart", "catalog", "checkout"]


def test_workloads_without_a_value_sort_as_the_smallest() -> None:
    found = views.chosen(SHOP, Choice(sort="tls"))
    assert [row.figures.tls for row in found][:3] == [None, None, 0.0]
    assert [row.figures.tls for row in views.chosen(SHOP, Choice(sort="-tls"))][-2:] == [None, None]


def test_unknown_questions_mean_the_default() -> None:
    assert Choice.parse({"sort": "'; drop", "by": "colour", "namespace": "x" * 9000}) == Choice(namespace="x" * 253)


def test_busiest_plaintext_comes_first() -> None:
    found = views.plaintext_edges(SHOP)
    assert found[0].server == "data/statefulset/postgres"
    assert all(Security.of(edge.tls) in (Security.MIXED, Security.PLAINTEXT) for edge in found)


def test_a_large_mesh_is_drawn_by_namespace_and_one_namespace_by_workload() -> None:
    mesh = meshes.large(200)
    assert views.picture(mesh, Choice()).grouped
    assert len(views.picture(mesh, Choice()).nodes) == 10
    assert not views.picture(mesh, Choice(namespace="team-3")).grouped
    assert len(views.picture(mesh, Choice(by="workload")).nodes) == 200


def test_shares_between_namespaces_are_weighted_by_their_rates() -> None:
    edges = (
        Edge("a/deployment/x", "b/deployment/y", tls=1.0, rate=9.0),
        Edge("a/deployment/z", "b/deployment/y", tls=0.0, rate=1.0),
    )
    [arrow] = views.picture(replace(SHOP, edges=edges), Choice(by="namespace")).arrows
    assert (arrow.edge.tls, arrow.edge.rate) == (0.9, 10.0)


def test_workloads_without_an_edge_are_listed_beside_the_picture() -> None:
    assert [row.name for row in views.picture(SHOP, Choice()).quiet] == ["report", "mail"]


@given(EDGES, st.randoms(use_true_random=False))
def test_the_picture_does_not_depend_on_the_order_of_the_edges(edges: list[tuple[str, str]], random: object) -> None:
    shuffled = list(edges)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert arrange(edges) == arrange(shuffled)


@given(EDGES)
def test_every_edge_has_a_way_and_no_box_lies_on_another(edges: list[tuple[str, str]]) -> None:
    layout = arrange(edges)
    assert {(route.client, route.server) for route in layout.routes} == set(edges)
    assert set(layout.nodes) == {node for edge in edges for node in edge}
    for (x, y), (other_x, other_y) in itertools.combinations(layout.nodes.values(), 2):
        assert abs(x - other_x) >= NODE_WIDTH or abs(y - other_y) >= NODE_HEIGHT
    for x, y in layout.nodes.values():
        assert 0 <= x <= layout.width - NODE_WIDTH and 0 <= y <= layout.height - NODE_HEIGHT


def test_clients_stand_left_of_their_servers_unless_they_call_in_a_circle() -> None:
    layout = arrange([("a", "b"), ("b", "c"), ("a", "c"), ("c", "a")])
    assert layout.nodes["a"][0] < layout.nodes["b"][0] < layout.nodes["c"][0]
