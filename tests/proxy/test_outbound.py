"""Outbound: what the app dials goes through Envoy and arrives as it was, except what must not be touched."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from tests.proxy.namespaces import App, Network, closed, eventually
from tests.proxy.pod import Pod

pytestmark = pytest.mark.envoy

CONNECT = "import socket, sys; s = socket.create_connection((sys.argv[1], 7000), 60); s.sendall(b'x'); print(s.recv(9))"


@pytest.fixture
def pod(make_pod: Callable[..., Pod]) -> Pod:
    pod = make_pod(AUTOTLS_SKIP_OUTBOUND_PORTS="7001,7100-7200,7150")
    redirected = pod.init()
    assert redirected.returncode == 0, redirected.stderr
    return pod.start()


def through_the_proxy(pod: Pod) -> float:
    return pod.metric("envoy_cluster_upstream_cx_total", envoy_cluster_name="passthrough")


def echo(network: Network, address: str, port: int) -> None:
    with network.connect(address, port) as connection:
        connection.sendall(b"hello")
        assert connection.recv(100) == b"hello"


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_connection_passes_through_and_arrives_from_the_pods_address(
    pod: Pod, server: Network, client: Network, family: str
) -> None:
    elsewhere = getattr(client, family)
    with App(client, elsewhere, 7000) as app:
        echo(server, elsewhere, 7000)
        assert app.peers == [getattr(server, family)]
    assert through_the_proxy(pod) == 1
    # The destination as the application dialled it: what a reader names the reason by.
    by = {"dir": "outbound", "dst": f"{elsewhere}:7000" if family == "ipv4" else f"[{elsewhere}]:7000"}
    eventually(lambda: pod.metric("envoy_autotls_rq", **by, svc="passthrough", proto="TCP", code="-") == 1)
    for name in ("envoy_autotls_rx", "envoy_autotls_tx"):
        eventually(lambda name=name: pod.metric(name, **by) == 5)


def test_a_server_that_speaks_first_is_heard(pod: Pod, server: Network, client: Network) -> None:
    with App(client, client.ipv4, 7000, greeting=b"220 mail"), server.connect(client.ipv4, 7000) as connection:
        assert connection.recv(100) == b"220 mail"
    assert through_the_proxy(pod) == 1


@pytest.mark.parametrize("port", [15100, 15106, 15108, 15120, 15199])
def test_a_port_of_ours_elsewhere_is_reached_there_and_not_at_home(
    pod: Pod, server: Network, client: Network, port: int
) -> None:
    """Redirected, Envoy would hand the connection to its own listener of that port."""
    with App(client, client.ipv4, port) as app:
        echo(server, client.ipv4, port)
        assert app.peers == [server.ipv4]
    assert through_the_proxy(pod) == 0


@pytest.mark.parametrize("port", [7001, 7100, 7150, 7200])
def test_skipped_ports_do_not_touch_the_proxy(pod: Pod, server: Network, client: Network, port: int) -> None:
    with App(client, client.ipv4, port):
        echo(server, client.ipv4, port)
    assert through_the_proxy(pod) == 0


def test_what_stays_in_the_pod_does_not_touch_the_proxy(pod: Pod, server: Network) -> None:
    for address in ("127.0.0.1", "127.1.2.3", "::1", server.ipv4, server.ipv6):
        with App(server, address, 7000):
            echo(server, address, 7000)
    assert through_the_proxy(pod) == 0


def test_the_proxys_own_uid_is_not_redirected_and_others_are(pod: Pod, server: Network, client: Network) -> None:
    with App(client, client.ipv4, 7000) as app:
        for uid, expected in (("2102", 0), ("1000", 1)):
            done = server.run(
                "setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "/usr/bin/python3", "-c", CONNECT,
                client.ipv4,
            )  # fmt: skip
            assert done.stdout == "b'x'\n"
            assert through_the_proxy(pod) == expected
        assert app.peers == [server.ipv4] * 2


def test_a_refused_destination_closes_the_connection(pod: Pod, server: Network, client: Network) -> None:
    with server.connect(client.ipv4, 7000) as connection:
        assert closed(connection)


def test_dialling_the_redirect_port_by_hand_does_not_make_the_proxy_call_itself(pod: Pod, server: Network) -> None:
    for address in ("127.0.0.1", "::1"):
        with server.connect(address, 15101) as connection:
            assert closed(connection)
    assert through_the_proxy(pod) == 0


def test_a_killed_proxy_passes_connections_again_once_it_is_back(pod: Pod, server: Network, client: Network) -> None:
    with App(client, client.ipv4, 7000):
        echo(server, client.ipv4, 7000)
        os.kill(pod.envoy_pid, signal.SIGKILL)
        eventually(lambda: echo(server, client.ipv4, 7000) is None)
