"""Mutual TLS by itself between real Envoys, and nothing else breaks. Pods are network namespaces behind a router."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.proof.envoy import hosts_path, parse_hosts
from discovery.kinds import ServicePort, SlicePort
from tests.discovery.certificates import ControlPlaneAuthority
from tests.discovery.fleet import Fleet, Member, gathered
from tests.discovery.h2 import calls, serving
from tests.discovery.load import Load
from tests.discovery.objects import endpoint_slice, identity, service
from tests.proxy.certificates import client_context
from tests.proxy.namespaces import eventually, http_get

pytestmark = pytest.mark.envoy

VIP = "10.96.7.10"
UPSTREAM_TLS = "TLSv1.2"  # of optional mode
PORTS = (
    ServicePort(port=80, name="web", target_port=8080),
    ServicePort(port=3306, name="mysql", target_port=3306),
    ServicePort(port=7000, name="odd", target_port=7000),
)
SLICE_PORTS = (SlicePort(name="web", port=8080), SlicePort(name="mysql", port=3306), SlicePort(name="odd", port=7000))


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with gathered(tmp_path) as fleet:
        yield fleet


def shop(fleet: Fleet, *members: Member) -> None:
    """One Service over `members`, in discovery and in the router's kube-proxy."""
    fleet.discovery.put(
        service("web", VIP, ports=PORTS), endpoint_slice("web", *(m.address for m in members), ports=SLICE_PORTS)
    )
    for port in PORTS:
        fleet.router.service(VIP, port.port, *(f"{m.address}:{port.target_port}" for m in members))


def serve(member: Member) -> Member:
    member.http(8080)
    member.echo(3306, greeting=b"5.7 ready")
    member.echo(7000)
    return member


@pytest.fixture
def pair(fleet: Fleet) -> tuple[Member, Member]:
    """A meshed client and a meshed server behind the Service."""
    server = serve(fleet.member("web-0", "web"))
    client = fleet.member("client-0", "client")
    fleet.announce(server, ports=(8080, 3306, 7000))
    fleet.announce(client, ports=(9000,))
    shop(fleet, server)
    return client, server


def test_http_tcp_and_server_first_go_by_mutual_tls_through_the_service_and_the_pods_address(
    fleet: Fleet, pair: tuple[Member, Member]
) -> None:
    client, server = pair
    fleet.discovery.start()
    fleet.configured(client)
    for address, port, name in ((VIP, 80, "shop/web:80"), (server.address, 8080, f"pod/{server.address}:8080")):
        assert http_get(client.network, address, port, "/")[0] == 200
        labels = {"tls": UPSTREAM_TLS, "peer": identity("web"), "code": "200", "dst": "shop/pod/web-0", "reason": ""}
        eventually(lambda n=name, by=labels: client.outbound(n, **by) == 1)
    with client.network.connect(VIP, 3306) as connection:
        assert connection.recv(100) == b"5.7 ready"
    with client.network.connect(VIP, 7000) as connection:
        connection.sendall(b"neither http nor line")
        assert connection.recv(100) == b"neither http nor line"
    for name in ("shop/web:3306", "shop/web:7000"):
        eventually(lambda n=name: client.outbound(n, tls=UPSTREAM_TLS, peer=identity("web")) == 1)
    eventually(lambda: server.proxy.metric("envoy_autotls_rq", dir="inbound", peer=identity("client")) == 4)
    # The app saw the proxy call from the pod's own address.
    assert {peer for app in server.apps for peer in app.peers} == {server.address}


def test_the_wait_before_the_application_ends_when_the_proxy_is_configured(
    fleet: Fleet, pair: tuple[Member, Member]
) -> None:
    client, _ = pair

    def waited(outcome: str) -> bool:
        """On a machine so busy that Envoy's answers took the two seconds, neither outcome is told."""
        done = client.proxy.wait()
        assert done.returncode == 0
        return f"event={outcome}" in done.stderr

    eventually(lambda: waited("proxy_not_configured_in_time"))
    assert "event=proxy_ready" not in client.proxy.wait().stderr
    fleet.discovery.start()
    fleet.configured(client)
    eventually(lambda: waited("proxy_ready"))


def test_a_service_with_mixed_endpoints_uses_tls_for_the_meshed_ones_alone(fleet: Fleet) -> None:
    meshed, plain = serve(fleet.member("web-0", "web")), serve(fleet.member("web-1", "web", meshed=False))
    client = fleet.member("client-0", "client")
    fleet.announce(meshed, plain, client)
    shop(fleet, meshed, plain)
    fleet.discovery.start()
    fleet.configured(client)
    answers = [http_get(client.network, VIP, 80, "/") for _ in range(10)]
    assert {status for status, _ in answers} == {200}
    # The unmeshed app sees the client itself, the meshed one its own proxy.
    assert {body for _, body in answers} == {client.address, meshed.address}
    eventually(lambda: client.outbound("shop/web:80", tls=UPSTREAM_TLS, reason="") == 5)
    eventually(lambda: client.outbound("shop/web:80", tls="", reason="not_meshed") == 5)


def test_nothing_fails_while_a_pod_goes_back_and_forth_between_meshed_and_not(
    fleet: Fleet, pair: tuple[Member, Member]
) -> None:
    client, server = pair
    fleet.discovery.start()
    fleet.configured(client)
    with Load(client.network, VIP, 80, tcp_port=7000) as load:
        for turn in range(12):
            meshed = turn % 2 == 1
            by = {"tls": UPSTREAM_TLS} if meshed else {"tls": "", "reason": "not_meshed"}
            before = client.outbound("shop/web:80", **by)
            fleet.announce(server, meshed=meshed, ports=(8080, 3306, 7000))
            load.more(20)
            # Each turn comes into force, however late.
            eventually(lambda by=by, before=before: client.outbound("shop/web:80", **by) > before + 4)
    assert not load.failures
    plain, tls = (client.outbound("shop/web:80", tls=version) for version in ("", UPSTREAM_TLS))
    assert http_get(client.network, VIP, 80, "/")[0] == 200
    eventually(lambda: client.outbound("shop/web:80", tls=UPSTREAM_TLS) == tls + 1)
    assert client.outbound("shop/web:80", tls="") == plain


def test_discovery_absent_at_first_then_killed_then_empty_costs_no_request(
    fleet: Fleet, pair: tuple[Member, Member]
) -> None:
    client, _ = pair
    with Load(client.network, VIP, 80, tcp_port=7000) as load:
        load.more(30)
        assert client.outbound("shop/web:80") == 0
        eventually(lambda: client.outbound("passthrough", dst=f"{VIP}:80") > 0)
        fleet.discovery.start()
        fleet.configured(client)
        load.more(60)
        listeners = client.proxy.metric("envoy_listener_manager_listener_added")
        fleet.discovery.stop()
        load.more(60)
        fleet.discovery.start()
        eventually(lambda: fleet.discovery.serves("shop/client-0"), what="the client is back")
        load.more(60)
    assert not load.failures
    eventually(lambda: client.outbound("shop/web:80", tls=UPSTREAM_TLS) > 60)
    # A server that restarted with the same cluster sends the same versions, so nothing was touched.
    assert client.proxy.metric("envoy_listener_manager_listener_added") == listeners
    assert client.proxy.metric("envoy_listener_manager_listener_modified") == 0


@pytest.mark.parametrize("late", ["client", "server"])
def test_late_identity_files_of_either_side_cost_no_request_and_then_it_is_tls(fleet: Fleet, late: str) -> None:
    server = serve(fleet.member("web-0", "web", files=late != "server"))
    client = fleet.member("client-0", "client", files=late != "client")
    fleet.announce(server, ports=(8080, 7000))
    fleet.announce(client, ports=(9000,))
    shop(fleet, server)
    fleet.discovery.start()
    if late == "server":
        fleet.configured(client)
    with Load(client.network, VIP, 80, tcp_port=7000) as load:
        load.more(60)
        fleet.identify(client if late == "client" else server)
        fleet.configured(client)
        eventually(lambda: client.outbound("shop/web:80", tls=UPSTREAM_TLS) > 10)
    assert not load.failures
    if late == "server":
        eventually(lambda: client.outbound("shop/web:80", tls="", reason="tls_failed") > 0)
    else:
        # Discovery tells nothing to who cannot say who it is: no listener, so no `tls_failed` either.
        for port in (80, 7000):
            eventually(lambda port=port: client.outbound("passthrough", dst=f"{VIP}:{port}") > 0)


def test_a_peer_with_another_identity_is_refused_and_reached_in_plaintext_which_is_counted(
    fleet: Fleet, pair: tuple[Member, Member]
) -> None:
    client, server = pair
    fleet.identify(server, "impostor")
    fleet.discovery.start()
    fleet.configured(client)
    with Load(client.network, VIP, 80, tcp_port=7000) as load:
        load.more(60)
    assert not load.failures
    eventually(lambda: client.outbound("shop/web:80", tls="", reason="tls_failed") > 0)
    assert client.outbound("shop/web:80", tls=UPSTREAM_TLS) == 0
    eventually(lambda: client.proxy.metric("envoy_cluster_ssl_fail_verify_san", envoy_cluster_name="shop/web_80") > 0)


def test_strict_never_falls_back(fleet: Fleet) -> None:
    server, impostor = serve(fleet.member("web-0", "web")), serve(fleet.member("web-1", "web", files=False))
    fleet.identify(impostor, "impostor")
    client = fleet.member("client-0", "client", AUTOTLS_MODE="strict")
    fleet.announce(server, impostor, client)
    shop(fleet, server)
    fleet.discovery.start()
    fleet.configured(client)
    assert http_get(client.network, VIP, 80, "/")[0] == 200
    eventually(lambda: client.outbound("shop/web:80", tls="TLSv1.3", peer=identity("web"), code="200") == 1)
    shop(fleet, impostor)
    eventually(lambda: http_get(client.network, VIP, 80, "/")[0] == 503)
    assert [http_get(client.network, VIP, 80, "/")[0] for _ in range(10)] == [503] * 10
    assert client.outbound("shop/web:80", tls="", code="200") == 0
    assert impostor.apps[0].peers == []


def held(client: Member) -> set[str]:
    """The endpoints of the Service's HTTP port that the client's proxy holds."""
    name = "shop/web:80"
    return {host.address for host in parse_hosts(client.proxy.admin(hosts_path(name)), name)}


def test_a_service_account_that_joins_or_leaves_costs_no_request_even_in_strict(fleet: Fleet) -> None:
    first, second = serve(fleet.member("web-0", "web")), serve(fleet.member("web-1", "web-next"))
    client = fleet.member("client-0", "client", AUTOTLS_MODE="strict")
    fleet.announce(first, second, ports=(8080, 7000))
    fleet.announce(client, ports=(9000,))
    shop(fleet, first)
    fleet.discovery.start()
    fleet.configured(client)
    with Load(client.network, VIP, 80, tcp_port=7000) as load:
        for members in ((first, second), (second,), (first, second), (first,)):
            shop(fleet, *members)
            eventually(lambda wanted=members: held(client) == {f"{member.address}:15108" for member in wanted})
            load.more(40)
    assert not load.failures
    for account in ("web", "web-next"):
        eventually(lambda a=account: client.outbound("shop/web:80", tls="TLSv1.3", peer=identity(a)) > 20)


def test_a_dead_proxy_is_passed_by_and_tls_returns_by_itself(fleet: Fleet, pair: tuple[Member, Member]) -> None:
    client, server = pair
    fleet.discovery.start()
    fleet.configured(client)
    with Load(client.network, VIP, 80, tcp_port=7000) as load:
        load.more(30)
        server.proxy.terminate()
        server.proxy.exit_status()
        eventually(lambda: client.outbound("shop/web:80", tls="", reason="tls_failed") > 50)
        server.proxy.start()
        before = client.outbound("shop/web:80", tls="TLSv1.2")
        eventually(lambda: client.outbound("shop/web:80", tls="TLSv1.2") > before + 50)
    assert sum(load.failures.values()) <= 3, load.failures  # those in flight


def test_an_app_that_was_away_answers_at_once_when_it_is_back(fleet: Fleet) -> None:
    """Every address of every priority is ejected by then; ejection must not outlast the outage."""
    server, client = fleet.member("web-0", "web", meshed=False), fleet.member("client-0", "client")
    other = serve(fleet.member("web-1", "web"))
    fleet.announce(server, other, client)
    shop(fleet, server, other)
    fleet.discovery.start()
    fleet.configured(client)
    shop(fleet, server)
    eventually(lambda: http_get(client.network, VIP, 80, "/")[0] == 503)
    for _ in range(30):
        assert http_get(client.network, VIP, 80, "/")[0] == 503
    serve(server)
    # At once means that no time has to pass: an ejection would fail all of these for seconds.
    assert 200 in [http_get(client.network, VIP, 80, "/")[0] for _ in range(5)]


def test_only_declared_ports_of_a_pod_can_be_reached_through_mutual_tls(
    fleet: Fleet, pair: tuple[Member, Member], tmp_path: Path
) -> None:
    client, server = pair
    hidden = server.echo(9999, greeting=b"secret")
    fleet.discovery.start()
    fleet.configured(client)
    fleet.configured(server)

    def dial(port: str) -> bytes:
        leaf = fleet.authority.leaf(identity("client"))
        plain = fleet.router.network.connect(server.address, 15108)
        context = client_context(leaf, fleet.authority.pem, "autotls-tcp", tmp_path)
        try:
            with context.wrap_socket(plain, server_hostname=port.encode()) as connection:
                return connection.recv(100)
        except (ssl.SSLError, ConnectionError):
            return b""

    eventually(lambda: dial("9999") == b"")
    hidden.peers.clear()
    assert dial("3306") == b"5.7 ready"
    for port in ("9999", "15120", "15106", "0", "22"):
        assert dial(port) == b""
    assert hidden.peers == []


def test_a_client_whose_certificate_is_refused_goes_on_in_plaintext(fleet: Fleet, pair: tuple[Member, Member]) -> None:
    """In TLS 1.3 the refusal comes when the client believes it is connected: docs/adr/0010."""
    client, _ = pair
    fleet.discovery.start()
    fleet.configured(client)
    stranger = ControlPlaneAuthority("stranger").leaf(identity("client"))
    with Load(client.network, VIP, 80, tcp_port=7000) as load:
        load.more(30)
        fleet.give(client, stranger)
        load.more(150)
        eventually(lambda: client.outbound("shop/web:7000", tls="", reason="tls_failed") > 20)
        fleet.identify(client)
        before = client.outbound("shop/web:7000", tls=UPSTREAM_TLS)
        eventually(lambda: client.outbound("shop/web:7000", tls=UPSTREAM_TLS) > before + 20)
    assert not load.failures


def test_grpc_calls_and_streams_go_by_mutual_tls(fleet: Fleet) -> None:
    server, client = fleet.member("web-0", "web"), fleet.member("client-0", "client")
    fleet.announce(server, client)
    shop(fleet, server)
    fleet.discovery.start()
    fleet.configured(client)
    with serving(server.network, server.address, 8080):
        calls(client.network, VIP, 80, 20)
    eventually(
        lambda: client.outbound("shop/web:80", tls=UPSTREAM_TLS, proto="HTTP/2", peer=identity("web"), code="200") == 22
    )
