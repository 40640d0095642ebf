"""Edges: each pair of workloads once, with what mutual TLS proved about both ends."""

from telemetry.edges import Edge, edges
from telemetry.rows import Kind
from tests.telemetry.scenes import (
    NODE_ADDRESS,
    Counters,
    book_of,
    cluster_of,
    deployment_pod,
    identity,
    node_object,
    pod_object,
)

WEB, CLIENT = "web-5d4f8c7b9-0", "client-5d4f8c7b9-0"
TO_WEB = "shop/deployment/web"


def found(
    counters: dict[str, Counters], kind: Kind = Kind.DEPLOYMENT, namespace: str | None = "shop"
) -> dict[str, Edge]:
    pods = [
        deployment_pod("web", "10.0.0.2", observed=True, probed=8080),
        deployment_pod("client", "10.0.0.3"),
        pod_object("stranger", "10.0.0.4", meshed=False),
    ]
    book = book_of(cluster_of(pods, [], [node_object()]), counters)
    return {f"{edge.client.name} {edge.server.name}": edge for edge in edges(book, kind, namespace)}


def test_edge_that_both_proxies_saw_is_one_with_both_identities() -> None:
    client = Counters().outbound(TO_WEB, peer=identity("web"), times=3).outbound(TO_WEB, tls=False, reason="tls_failed")
    web = Counters().inbound(identity("client"), times=3).plaintext("10.0.0.3")
    (edge,) = found({CLIENT: client, WEB: web}).values()
    assert (edge.client.name, edge.server.name) == ("shop/deployment/client", TO_WEB)
    assert edge.client_identities == {identity("client")}
    assert edge.server_identities == {identity("web")}
    assert edge.protocols == {"HTTP/1.1"}
    assert (edge.traffic.units, edge.traffic.tls_share, edge.traffic.plaintext) == (4, 0.75, {"tls_failed": 1})


def test_client_without_a_proxy_is_known_from_the_server_that_observes() -> None:
    web = Counters().plaintext("10.0.0.4", times=2).plaintext("203.0.113.9").plaintext(NODE_ADDRESS, times=7)
    shown = found({WEB: web})
    assert {name: edge.traffic.units for name, edge in shown.items()} == {
        f"203.0.113.9 {TO_WEB}": 1,
        f"shop/pod/stranger {TO_WEB}": 2,
    }
    assert not shown[f"203.0.113.9 {TO_WEB}"].client_identities


def test_edges_of_other_kinds_and_namespaces_are_left_out() -> None:
    client = Counters().outbound("mart/statefulset/db", svc="mart/db:5432", proto="TCP")
    assert list(found({CLIENT: client})) == ["shop/deployment/client mart/statefulset/db"]
    assert list(found({CLIENT: client}, Kind.STATEFULSET, "mart")) == ["shop/deployment/client mart/statefulset/db"]
    assert not found({CLIENT: client}, Kind.STATEFULSET, "shop")
    assert list(found({CLIENT: client}, Kind.NAMESPACE, None)) == ["shop mart"]
