"""What a row of `stat` holds: whom it stands for, what it received, what was not seen."""

import pytest

from telemetry.ledger import Ledger, Traffic
from telemetry.rows import EVERYTHING, Kind, Peer, Row, Selection, table
from tests.telemetry.scenes import (
    NODE_ADDRESS,
    Counters,
    book_of,
    cluster_of,
    deployment_pod,
    identity,
    names_of,
    node_object,
    pod_object,
    service_object,
)

WEB = "shop/deployment/web"
CLIENT_POD = "client-5d4f8c7b9-0"
WEB_POD = "web-5d4f8c7b9-0"


def one(kind: Kind, book: Ledger, name: str, **more: Peer) -> Row:
    return next(row for row in table(kind, book, 10.0, EVERYTHING, **more).rows if row.name == name)


def scene(*, observed: bool = False, meshed_web: bool = True, client: Counters, web: Counters | None = None) -> Ledger:
    pods = [
        deployment_pod("web", "10.0.0.2", meshed=meshed_web, observed=observed, probed=8080),
        deployment_pod("client", "10.0.0.3"),
        pod_object("stranger", "10.0.0.4", meshed=False),
    ]
    cluster = cluster_of(pods, [service_object("web", "10.96.0.10")], [node_object()])
    return book_of(cluster, {CLIENT_POD: client, WEB_POD: web or Counters()})


def test_requests_by_mutual_tls_count_once_though_both_proxies_saw_them() -> None:
    client = Counters().outbound(WEB, peer=identity("web"), times=7)
    web = Counters().inbound(identity("client"), times=5).inbound(identity("client"), code="503", times=2)
    row = one(Kind.DEPLOYMENT, scene(client=client, web=web), "web")
    assert (row.meshed, row.total) == (1, 1)
    assert (row.traffic.total.received, row.traffic.total.sent) == (700, 7000)
    assert row.traffic.total.latency.total == 7
    assert (row.traffic.total.requests, row.traffic.total.succeeded) == (7, 5)
    assert row.traffic.tls_share == 1
    assert not row.traffic.plaintext


def test_plaintext_to_a_direct_server_is_told_by_the_client() -> None:
    client = Counters().outbound(WEB, times=3).outbound(WEB, tls=False, reason="tls_failed", times=1)
    row = one(Kind.DEPLOYMENT, scene(client=client, web=Counters().inbound(identity("client"), times=3)), "web")
    assert row.traffic.tls_share == 0.75
    assert row.traffic.total.latency.total == 4
    assert row.traffic.plaintext == {"tls_failed": 1}
    assert row.traffic.peers == {"shop/deployment/client": 1}
    assert row.unseen


def test_plaintext_to_an_observed_server_counts_at_the_server_alone() -> None:
    client = Counters().outbound(WEB, tls=False, reason="handshake_failed", times=4)
    web = Counters().plaintext("10.0.0.3", times=4).plaintext("10.0.0.4", times=2)
    row = one(Kind.DEPLOYMENT, scene(observed=True, client=client, web=web), "web")
    assert row.traffic.plaintext == {"handshake_failed": 4, "not_meshed": 2}
    assert row.traffic.peers == {"shop/deployment/client": 4, "shop/pod/stranger": 2}
    assert row.traffic.tls_share == 0
    assert not row.unseen


def test_kubelets_probes_are_no_traffic_but_others_from_the_node_are() -> None:
    web = Counters().plaintext(NODE_ADDRESS, times=9).plaintext("10.0.0.1", times=3).plaintext(NODE_ADDRESS, port=9000)
    row = one(Kind.DEPLOYMENT, scene(observed=True, client=Counters(), web=web), "web")
    assert row.traffic.probes == 12
    assert row.traffic.peers == {"node": 1}


def test_kubelet_is_known_where_nodes_do_not_say_their_pods_ranges() -> None:
    node = node_object()
    del node["spec"]["podCIDRs"]
    cluster = cluster_of([deployment_pod("web", "10.244.3.2", observed=True, probed=8080)], [], [node])
    web = Counters().plaintext("10.244.3.1", times=5).plaintext("10.244.3.9")
    row = one(Kind.DEPLOYMENT, book_of(cluster, {WEB_POD: web}), "web")
    assert (row.traffic.probes, dict(row.traffic.peers)) == (5, {"10.244.3.9": 1})


def test_unmeshed_server_shows_what_meshed_clients_sent_it() -> None:
    client = Counters().outbound(WEB, tls=False, reason="not_meshed", times=4)
    row = one(Kind.DEPLOYMENT, scene(meshed_web=False, client=client), "web")
    assert (row.meshed, row.total) == (0, 1)
    assert row.traffic.plaintext == {"not_meshed": 4}
    assert row.unseen


def test_skipped_ports_leave_a_doubt_even_where_plaintext_is_observed() -> None:
    cluster = cluster_of([deployment_pod("web", "10.0.0.2", observed=True, skipped="9090")])
    assert one(Kind.DEPLOYMENT, book_of(cluster, {}), "web").unseen


def test_request_that_reached_nobody_failed_and_is_neither_tls_nor_plaintext() -> None:
    client = Counters().outbound(WEB, times=3).outbound(WEB, tls=False, code="503")
    row = one(Kind.DEPLOYMENT, scene(client=client, web=Counters().inbound(identity("client"), times=3)), "web")
    assert (row.traffic.total.requests, row.traffic.total.succeeded) == (4, 3)
    assert row.traffic.tls_share == 1
    assert not row.traffic.plaintext


def test_nothing_counted_is_no_share() -> None:
    row = one(Kind.DEPLOYMENT, scene(client=Counters()), "web")
    assert row.traffic.tls_share is None
    assert row.traffic.total.latency.quantile(0.5) is None


def test_passed_through_connections_get_their_reason_from_the_cluster() -> None:
    client = Counters()
    for dst in ("10.96.0.10:80", "10.96.0.11:80", "10.0.0.4:8080", "203.0.113.9:443"):
        client.outbound(dst, tls=False, svc="passthrough", proto="TCP")
    pods = [
        deployment_pod("web", "10.0.0.2"),
        deployment_pod("client", "10.0.0.3"),
        pod_object("bare", "10.0.0.4", meshed=False),
    ]
    services = [
        service_object("web", "10.96.0.10"),
        service_object("sticky", "10.96.0.11", app="web", sessionAffinity="ClientIP"),
    ]
    book = book_of(cluster_of(pods, services), {CLIENT_POD: client})
    assert dict(book.sent(book.cluster.pods).plaintext) == {
        "out_of_reach": 1,
        "unsupported_service": 1,
        "not_meshed": 1,
        "external": 1,
    }
    assert one(Kind.DEPLOYMENT, book, "web").traffic.plaintext == {"out_of_reach": 1, "unsupported_service": 1}


@pytest.mark.parametrize(
    ("dst", "skipped", "reason"),
    [
        ("10.96.0.10:80", "8080", "skipped_port"),
        ("10.96.0.10:80", "8000-8100", "skipped_port"),
        ("10.96.0.10:81", "8080", "skipped_port"),
        ("10.96.0.10:80", "9090", "out_of_reach"),
        ("10.0.0.2:8080", "8080", "skipped_port"),
        ("10.0.0.2:15120", "", "skipped_port"),
        ("10.0.0.2:9090", "8080", "out_of_reach"),
    ],
)
def test_what_passed_to_a_port_that_the_server_skips_says_so(dst: str, skipped: str, reason: str) -> None:
    """By a Service's port with a number or a name behind it, or by the pod's address; whether it observes or not."""
    ports = [{"port": 80, "targetPort": 8080}, {"port": 81, "targetPort": "http"}]
    services = [service_object("web", "10.96.0.10", ports=ports)]
    for observed in (False, True):
        pods = [deployment_pod("web", "10.0.0.2", observed=observed, skipped=skipped)]
        client = Counters().outbound(dst, tls=False, svc="passthrough", proto="TCP")
        book = book_of(cluster_of([*pods, deployment_pod("client", "10.0.0.3")], services), {CLIENT_POD: client})
        assert dict(book.sent(book.cluster.pods).plaintext) == {reason: 1}
        # A server that observes counts what passed its proxy itself; a skipped port's does not.
        here = reason == "skipped_port" or not observed
        assert dict(one(Kind.DEPLOYMENT, book, "web").traffic.plaintext) == ({reason: 1} if here else {})


def test_what_was_sent_to_an_address_outside_of_the_cluster_has_its_row() -> None:
    client = Counters().outbound("[2001:db8::9]:443", tls=False, svc="passthrough", proto="TCP", times=3)
    client.outbound("203.0.113.9:443", tls=False, svc="passthrough", proto="TCP")
    book = scene(client=client)
    (row,) = table(Kind.POD, book, 10.0, Selection(names=(CLIENT_POD,)), to=Peer(None, "", "2001:db8::9")).rows
    assert (row.traffic.units, dict(row.traffic.plaintext)) == (3, {"external": 3})


def test_client_without_redirect_is_named_as_the_reason() -> None:
    pods = [deployment_pod("web", "10.0.0.2", observed=True), deployment_pod("client", "10.0.0.3", redirected=False)]
    book = book_of(cluster_of(pods), {WEB_POD: Counters().plaintext("10.0.0.3")})
    assert one(Kind.DEPLOYMENT, book, "web").traffic.plaintext == {"no_redirect": 1}


def test_every_kind_has_its_rows() -> None:
    pods = [
        deployment_pod("web", "10.0.0.2"),
        pod_object("db-0", "10.0.0.5", owner=("StatefulSet", "db")),
        pod_object("agent-x", "10.0.0.6", owner=("DaemonSet", "agent")),
        pod_object("import-x", "10.0.0.7", owner=("Job", "import")),
        pod_object("nightly-29000000-x", "10.0.0.8", owner=("Job", "nightly-29000000")),
    ]
    book = book_of(cluster_of(pods, [service_object("web", "10.96.0.10")]), {})
    shown = {kind: names_of(table(kind, book, 10.0).rows) for kind in Kind}
    assert shown == {
        Kind.DEPLOYMENT: ["web"],
        Kind.REPLICASET: ["web-5d4f8c7b9"],
        Kind.STATEFULSET: ["db"],
        Kind.DAEMONSET: ["agent"],
        Kind.JOB: ["import", "nightly-29000000"],
        Kind.CRONJOB: ["nightly"],
        Kind.POD: ["agent-x", "db-0", "import-x", "nightly-29000000-x", "web-5d4f8c7b9-0"],
        Kind.NAMESPACE: ["shop"],
        Kind.SERVICE: ["web"],
        Kind.AUTHORITY: [],
    }


def test_services_and_authorities_show_what_clients_asked_for() -> None:
    client = (
        Counters()
        .outbound(WEB, authority="web.shop", times=3)
        .outbound(WEB, tls=False, reason="tls_failed", authority="web.shop")
        .outbound("mart/deployment/other", svc="mart/other:80", authority="other.mart", times=9)
    )
    book = scene(client=client)
    service = one(Kind.SERVICE, book, "web")
    assert (service.meshed, service.total, service.traffic.total.requests) == (1, 1, 4)
    rows = table(Kind.AUTHORITY, book, 10.0, Selection("shop")).rows
    assert [(row.name, row.traffic.total.requests, row.traffic.tls_share) for row in rows] == [("web.shop", 4, 0.75)]
    assert rows[0].total is None
    assert rows[0].traffic.total.latency.total == 4
    assert book.sent(book.cluster.pods).total.latency.total == 13


def test_pod_of_a_workload_with_several_is_not_given_what_went_to_any_of_them() -> None:
    pods = [
        deployment_pod("web", "10.0.0.2", 0),
        deployment_pod("web", "10.0.0.9", 1),
        deployment_pod("client", "10.0.0.3"),
    ]
    client = Counters().outbound(WEB, tls=False, reason="tls_failed", times=6)
    book = book_of(cluster_of(pods), {CLIENT_POD: client})
    assert one(Kind.DEPLOYMENT, book, "web").traffic.units == 6
    assert one(Kind.POD, book, "web-5d4f8c7b9-1").traffic.units == 0


def test_namespace_holds_what_its_workloads_and_its_services_of_many_received() -> None:
    pods = [deployment_pod("a", "10.0.0.2", labels={"app": "x"}), deployment_pod("b", "10.0.0.5", labels={"app": "x"})]
    client = Counters().outbound("10.96.0.10:80", tls=False, svc="passthrough", proto="TCP", times=2)
    client.outbound("shop/deployment/a", tls=False, reason="tls_failed")
    cluster = cluster_of([*pods, deployment_pod("client", "10.0.0.3")], [service_object("x", "10.96.0.10")])
    book = book_of(cluster, {CLIENT_POD: client})
    assert one(Kind.NAMESPACE, book, "shop").traffic.units == 3
    assert one(Kind.DEPLOYMENT, book, "a").traffic.units == 1


def test_bytes_go_with_the_service_and_with_the_one_workload_that_all_requests_reached() -> None:
    client = Counters().outbound(WEB, times=3)
    client.outbound(WEB, svc="shop/both:80").outbound("shop/deployment/db", svc="shop/both:80")
    client.sent("shop/web:5432", times=2)  # a connection that has not ended
    cluster = cluster_of(
        [deployment_pod("web", "10.0.0.2"), deployment_pod("db", "10.0.0.4"), deployment_pod("client", "10.0.0.3")],
        [service_object("web", "10.96.0.10"), service_object("both", "10.96.0.11", app="none")],
    )
    book = book_of(cluster, {CLIENT_POD: client})

    def sent(kind: Kind, name: str) -> float:
        return one(Kind.DEPLOYMENT, book, "client", to=Peer(kind, "shop", name)).traffic.total.received

    assert (sent(Kind.SERVICE, "web"), sent(Kind.SERVICE, "both")) == (500, 200)
    assert (sent(Kind.DEPLOYMENT, "web"), sent(Kind.DEPLOYMENT, "db")) == (500, 0)
    assert one(Kind.SERVICE, book, "web").traffic.total.sent == 5000
    assert one(Kind.DEPLOYMENT, book, "web").traffic.total.received == 0  # web's own proxy says how much it got


def test_bytes_of_a_service_that_was_reached_in_plaintext_alone_are_the_servers_too() -> None:
    client = Counters().outbound(WEB, tls=False, reason="tls_failed", times=2)
    row = one(Kind.DEPLOYMENT, scene(client=client), "web")
    assert (row.traffic.total.received, row.traffic.total.sent) == (200, 2000)


def test_to_and_from_look_at_what_the_client_sent() -> None:
    client = Counters().outbound(WEB, times=3).outbound("shop/deployment/db", times=4, svc="shop/db:5432", proto="TCP")
    book = scene(client=client, web=Counters().inbound(identity("client"), times=3))
    to_web = one(Kind.DEPLOYMENT, book, "client", to=Peer(Kind.DEPLOYMENT, "shop", "web"))
    assert (to_web.traffic.units, to_web.unseen) == (3, False)
    through = one(Kind.DEPLOYMENT, book, "client", to=Peer(Kind.SERVICE, "shop", "db"))
    assert through.traffic.total.connections == 4
    from_client = one(Kind.DEPLOYMENT, book, "web", sent_by=Peer(Kind.DEPLOYMENT, "shop", "client"))
    assert from_client.traffic.units == 3
    inside = one(Kind.POD, book, CLIENT_POD, to=Peer(Kind.NAMESPACE, "", "shop"))
    assert inside.traffic.units == 7


def test_grpc_failures_are_no_success() -> None:
    client = Counters().outbound(WEB, grpc="0", times=3).outbound(WEB, grpc="14").outbound(WEB, grpc="5")
    traffic: Traffic = scene(client=client).sent(scene(client=client).cluster.pods)
    assert (traffic.total.requests, traffic.total.succeeded) == (5, 4)
