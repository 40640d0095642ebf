"""Mutual TLS by itself between real Envoys, and nothing else breaks. Pods are network namespaces behind a router."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from discovery.kinds import ServicePort, SlicePort
from tests.discovery.fleet import Fleet, Member
from tests.discovery.objects import endpoint_slice, identity, service
from tests.proxy.namespaces import eventually, http_get

pytestmark = pytest.mark.envoy

VIP = "10.96.7.10"
PORTS = (
    ServicePort(port=80, name="web", target_port=8080),
    ServicePort(port=3306, name="mysql", target_port=3306),
    ServicePort(port=7000, name="odd", target_port=7000),
)
SLICE_PORTS = (SlicePort(name="web", port=8080), SlicePort(name="mysql", port=3306), SlicePort(name="odd", port=7000))


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(tmp_path, stack)


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
    fleet.configured(client, 6)
    for address, port, name in ((VIP, 80, "shop/web:80"), (server.address, 8080, f"pod/{server.address}:8080")):
        assert http_get(client.network, address, port, "/")[0] == 200
        eventually(lambda n=name: client.outbound(n, tls="TLSv1.2", peer=identity("web"), code="200") == 1)
    with client.network.connect(VIP, 3306) as connection:
        assert connection.recv(100) == b"5.7 ready"
    with client.network.connect(VIP, 7000) as connection:
        connection.sendall(b"neither http nor line")
        assert connection.recv(100) == b"neither http nor line"
    for name in ("shop/web:3306", "shop/web:7000"):
        eventually(lambda n=name: client.outbound(n, tls="TLSv1.2", peer=identity("web")) == 1)
    eventually(lambda: server.proxy.metric("envoy_autotls_rq", dir="inbound", peer=identity("client")) == 4)
    # The app saw the proxy call from the pod's own address.
    assert {peer for app in server.apps for peer in app.peers} == {server.address}
