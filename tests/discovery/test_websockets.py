"""A WebSocket that its server ends, which is how they all end, is no failure of the peer: what follows is TLS too."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from discovery.kinds import ServicePort, SlicePort
from tests.discovery.fleet import Fleet, Member, gathered
from tests.discovery.objects import endpoint_slice, identity, service
from tests.proxy.namespaces import App, eventually, http_get

pytestmark = pytest.mark.envoy

VIP = "10.96.7.10"
UPGRADE = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


class Upgrading(App):
    """Says hello after the upgrade, and ends the connection when it is told to. Any other request gets a 200."""

    def _serve(self, connection: socket.socket, peer: str) -> None:
        with contextlib.suppress(OSError), connection:
            while data := connection.recv(65536):
                if b"end" in data:
                    return
                upgrade = b"upgrade: websocket" in data.lower()
                connection.sendall(SWITCHED + b"hello" if upgrade else b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def opened(client: Member, port: int) -> socket.socket:
    connection = client.network.connect(VIP, port)
    connection.sendall(UPGRADE)
    received = b""
    while not received.endswith(b"hello"):
        more = connection.recv(4096)
        assert more, received
        received += more
    assert received.startswith(b"HTTP/1.1 101")
    return connection


def ended_by_the_server(connection: socket.socket) -> None:
    connection.sendall(b"end")
    assert connection.recv(100) == b""
    connection.close()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with gathered(tmp_path) as fleet:
        yield fleet


@pytest.fixture
def client(fleet: Fleet) -> Member:
    """A meshed client, configured; the meshed server has port 80, named as HTTP, and 81, declared as WebSocket."""
    server, found = fleet.member("web-0", "web"), fleet.member("client-0", "client")
    for port in (8080, 8082):
        server.apps.append(Upgrading(server.network, server.address, port))
    fleet.announce(server, found, ports=(8080, 8082))
    ports = (
        ServicePort(port=80, name="web", target_port=8080),
        ServicePort(port=81, name="chat", target_port=8082, app_protocol="kubernetes.io/ws"),
    )
    slices = (SlicePort(name="web", port=8080), SlicePort(name="chat", port=8082))
    fleet.discovery.put(service("web", VIP, ports=ports), endpoint_slice("web", server.address, ports=slices))
    fleet.discovery.start()
    fleet.configured(found)
    return found


def test_websockets_ended_by_the_server_one_after_the_other_leave_it_on_tls(client: Member) -> None:
    for _ in range(8):
        ended_by_the_server(opened(client, 80))
        assert http_get(client.network, VIP, 80, "/")[0] == 200
    eventually(lambda: client.outbound("shop/web:80", tls="TLSv1.2", peer=identity("web"), code="101") == 8)
    eventually(lambda: client.outbound("shop/web:80", tls="TLSv1.2", code="200") == 8)
    assert client.outbound("shop/web:80", tls="") == 0


def test_declared_websockets_ended_by_the_server_all_at_once_leave_it_on_tls(client: Member) -> None:
    connections = [opened(client, 81) for _ in range(20)]
    for connection in connections:
        ended_by_the_server(connection)
    ended_by_the_server(opened(client, 81))
    assert http_get(client.network, VIP, 81, "/")[0] == 200
    eventually(lambda: client.outbound("shop/web:81", tls="TLSv1.2", peer=identity("web"), code="101") == 21)
    eventually(lambda: client.outbound("shop/web:81", tls="TLSv1.2", code="200") == 1)
    assert client.outbound("shop/web:81", tls="") == 0
