"""Each reason of plaintext provoked between real Envoys, and found again in what they count."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from discovery.kinds import ServicePort, SlicePort
from mesh.reasons import Plaintext
from telemetry.reasons import Sample, attempts, cluster_label, own_fault, refine, turned_away
from tests.discovery.certificates import ControlPlaneAuthority
from tests.discovery.fleet import Fleet, Member, gathered
from tests.discovery.objects import endpoint_slice, identity, service
from tests.proxy.namespaces import eventually, http_get

pytestmark = pytest.mark.envoy

VIP = "10.96.7.12"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with gathered(tmp_path) as fleet:
        yield fleet


def samples(member: Member) -> list[Sample]:
    found: list[Sample] = []
    for line in member.proxy.status("/metrics")[1].splitlines():
        if line.startswith("#"):
            continue
        name, _, rest = line.partition("{")
        labels, _, value = rest.rpartition("} ")
        found.append((name, dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)))
    return found


def two_pods(fleet: Fleet, *, client_files: bool = True, server_files: bool = True) -> tuple[Member, Member]:
    """A client, and a server with an HTTP and a TCP port behind one Service."""
    server = fleet.member("web-0", "web", files=server_files)
    client = fleet.member("client-0", "client", files=client_files)
    server.http(8080)
    server.echo(7000)
    fleet.announce(server, ports=(8080, 7000))
    fleet.announce(client, ports=(9000,))
    ports = (ServicePort(port=80, name="web", target_port=8080), ServicePort(port=7000, name="odd", target_port=7000))
    slices = (SlicePort(name="web", port=8080), SlicePort(name="odd", port=7000))
    fleet.discovery.put(service("web", VIP, ports=ports), endpoint_slice("web", server.address, ports=slices))
    for port in ports:
        fleet.router.service(VIP, port.port, f"{server.address}:{port.target_port}")
    fleet.discovery.start()
    return client, server


def talk(client: Member) -> None:
    """Both protocols are answered, whatever is wrong with TLS."""
    for _ in range(3):
        assert http_get(client.network, VIP, 80, "/")[0] == 200
        with client.network.connect(VIP, 7000) as connection:
            connection.sendall(b"neither HTTP nor a line")
            assert connection.recv(100) == b"neither HTTP nor a line"


def no_identity(fleet: Fleet, client: Member, server: Member) -> None:
    """It was started without files."""


def impostor(fleet: Fleet, client: Member, server: Member) -> None:
    fleet.identify(server, "impostor")


def foreign_client(fleet: Fleet, client: Member, server: Member) -> None:
    leaf = ControlPlaneAuthority("stranger").leaf(identity("client"))
    fleet.give(client, leaf)


def foreign_server(fleet: Fleet, client: Member, server: Member) -> None:
    leaf = ControlPlaneAuthority("stranger").leaf(identity("web"))
    fleet.give(server, leaf)


def dead_proxy(fleet: Fleet, client: Member, server: Member) -> None:
    server.proxy.terminate()
    server.proxy.exit_status()


def dropped(fleet: Fleet, client: Member, server: Member) -> None:
    """As a NetworkPolicy does that forgets the port."""
    rule = "add rule inet t c tcp dport 15108 drop"
    server.network.run("nft", f"add table inet t; add chain inet t c {{ type filter hook input priority 0; }}; {rule}")


@pytest.mark.parametrize(
    ("sabotage", "expected"),
    [
        (no_identity, Plaintext.NO_IDENTITY_SERVER),
        (impostor, Plaintext.HANDSHAKE_FAILED),
        (foreign_client, Plaintext.HANDSHAKE_FAILED),
        (foreign_server, Plaintext.HANDSHAKE_FAILED),
        (dead_proxy, Plaintext.UNREACHABLE),
        (dropped, Plaintext.UNREACHABLE),
    ],
)
def test_a_fallback_is_counted_and_its_cause_is_in_the_counters(
    fleet: Fleet, sabotage: Callable[[Fleet, Member, Member], None], expected: Plaintext
) -> None:
    client, server = two_pods(fleet, server_files=sabotage is not no_identity)
    fleet.configured(client)
    sabotage(fleet, client, server)
    talk(client)
    server_says = sabotage is not dead_proxy and turned_away(samples(server))
    for svc in ("shop/web:80", "shop/web:7000"):
        by = {"dst": "shop/pod/web-0", "tls": "", "peer": ""}
        eventually(lambda svc=svc, by=by: client.outbound(svc, reason="tls_failed", **by) == 3)
        assert client.outbound(svc) == 3
        found = attempts(samples(client))[cluster_label(svc)]
        assert refine(found, server_without_identity=server_says) is expected
    assert own_fault(samples(client)) is None
    if sabotage is foreign_client:
        return  # nor does discovery believe who it is
    # Discovery is told, once for the pair.
    (said,) = eventually(lambda: fleet.discovery.fallbacks)
    assert (said.client.key, said.server) == ("shop/client-0", "shop/pod/web-0")
    print(expected, repr(said.failure))


def test_a_client_without_identity_is_told_nothing_and_passes_everything_through(fleet: Fleet) -> None:
    client, server = two_pods(fleet, client_files=False)
    fleet.configured(server)
    talk(client)
    for port in (80, 7000):
        eventually(lambda port=port: client.outbound("passthrough", dst=f"{VIP}:{port}") == 3)
    assert own_fault(samples(client)) is Plaintext.NO_IDENTITY_CLIENT
    fleet.identify(client)
    fleet.configured(client)
    assert own_fault(samples(client)) is None


def test_a_client_that_never_reached_discovery_says_so(fleet: Fleet) -> None:
    two_pods(fleet)
    fleet.discovery.stop()
    late = fleet.member("late-0", "client")
    talk(late)
    eventually(lambda: late.outbound("passthrough", dst=f"{VIP}:80") == 3)
    assert own_fault(samples(late)) is Plaintext.DISCOVERY_UNAVAILABLE
