"""Inbound `observed`: plaintext is counted on its way to the app, and nothing else changes but its source address."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.proxy.certificates import Authority, client_context, spiffe, swap_identity
from tests.proxy.namespaces import App, Network, closed, eventually
from tests.proxy.pod import Pod

pytestmark = pytest.mark.envoy


@pytest.fixture
def pod(make_pod: Callable[..., Pod], authority: Authority) -> Pod:
    pod = make_pod(AUTOTLS_INBOUND="observed", AUTOTLS_SKIP_INBOUND_PORTS="7001")
    swap_identity(pod.identity, authority.leaf(spiffe("server")).files())
    redirected = pod.init()
    assert redirected.returncode == 0, redirected.stderr
    return pod.start()


def observed(pod: Pod) -> float:
    return pod.metric("envoy_listener_downstream_cx_total", envoy_listener_address="inbound_plain")


@pytest.mark.parametrize(("family", "anywhere"), [("ipv4", "0.0.0.0"), ("ipv6", "::")])
def test_plaintext_reaches_the_app_from_the_pods_own_address_and_is_counted(
    pod: Pod, server: Network, client: Network, family: str, anywhere: str
) -> None:
    address = getattr(server, family)
    # Bound to one address and to all: the kernel finds either listener.
    for port, bound in ((7000, address), (7005, anywhere)):
        with App(server, bound, port) as app, client.connect(address, port) as connection:
            connection.sendall(b"hi")
            assert connection.recv(100) == b"hi"
            assert app.peers == [address]
    assert observed(pod) == 2
    by = {"dir": "inbound", "src": getattr(client, family)}
    for port in ("7000", "7005"):
        eventually(lambda port=port: pod.metric("envoy_autotls_rq", **by, port=port, proto="TCP", code="-") == 1)
        for name in ("envoy_autotls_rx", "envoy_autotls_tx"):
            eventually(lambda name=name, port=port: pod.metric(name, **by, port=port) == 2)


def test_a_server_that_speaks_first_is_heard(pod: Pod, server: Network, client: Network) -> None:
    with App(server, server.ipv4, 7000, greeting=b"220 mail"), client.connect(server.ipv4, 7000) as connection:
        assert connection.recv(100) == b"220 mail"
    assert observed(pod) == 1


def test_a_closed_port_still_refuses(pod: Pod, server: Network, client: Network) -> None:
    for address in (server.ipv4, server.ipv6):
        with pytest.raises(ConnectionRefusedError):
            client.connect(address, 7000)
    # A port that was open and closed again, and one that listens on the loopback alone.
    with App(server, server.ipv4, 7002):
        client.connect(server.ipv4, 7002).close()
    with App(server, "127.0.0.1", 7003):
        for port in (7002, 7003):
            with pytest.raises(ConnectionRefusedError):
                client.connect(server.ipv4, port)


def test_a_skipped_port_keeps_the_clients_address(pod: Pod, server: Network, client: Network) -> None:
    with App(server, server.ipv4, 7001) as app, client.connect(server.ipv4, 7001) as connection:
        connection.sendall(b"hi")
        assert connection.recv(100) == b"hi"
        assert app.peers == [client.ipv4]
    assert observed(pod) == 0


def test_what_stays_in_the_pod_is_not_observed(pod: Pod, server: Network) -> None:
    for address in ("127.0.0.1", server.ipv4):
        with App(server, address, 7000) as app, server.connect(address, 7000) as connection:
            connection.sendall(b"hi")
            assert connection.recv(100) == b"hi"
            assert app.peers == [address]
    assert observed(pod) == 0


def test_mutual_tls_and_status_are_not_redirected(
    pod: Pod, server: Network, client: Network, authority: Authority, tmp_path: Path
) -> None:
    context = client_context(authority.leaf(spiffe("client")), authority.pem, "autotls-tcp", tmp_path)
    with (
        App(server, server.ipv4, 7000) as app,
        context.wrap_socket(client.connect(server.ipv4, 15108), server_hostname="7000") as connection,
    ):
        connection.sendall(b"hi")
        assert connection.recv(100) == b"hi"
        assert app.peers == [server.ipv4]
    assert pod.status("/ready")[0] == 200
    assert observed(pod) == 0


def test_dialling_the_redirect_port_by_hand_does_not_make_the_proxy_call_itself(
    pod: Pod, server: Network, client: Network
) -> None:
    for address in (server.ipv4, server.ipv6):
        with client.connect(address, 15106) as connection:
            assert closed(connection)
    with server.connect("127.0.0.1", 15106) as connection:
        assert closed(connection)
    assert pod.metric("envoy_listener_no_filter_chain_match", envoy_listener_address="inbound_plain") == 3
    assert pod.metric("envoy_cluster_upstream_cx_total", envoy_cluster_name="inbound_app") == 0
