"""Tap with real Envoys: what it tells of each kind of traffic, and that it leaves nothing when nobody taps."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from discovery.entries import NAMESPACE, POD, Entry, Selection, Target
from discovery.kinds import ServicePort, SlicePort
from discovery.metrics import SINK_ENTRIES, SINK_STREAMS
from tests.discovery.fleet import Fleet, Member, gathered
from tests.discovery.h2 import calls, serving
from tests.discovery.live import Tap
from tests.discovery.objects import endpoint_slice, identity, service
from tests.proxy.namespaces import Network, eventually, http_get
from tests.proxy.pod import Pod

pytestmark = pytest.mark.envoy

VIP = "10.96.7.10"
PLAIN_VIP = "10.96.7.11"
UPSTREAM_TLS = "TLSv1.2"  # of optional mode
PORTS = (ServicePort(port=80, name="web", target_port=8080), ServicePort(port=3306, name="mysql", target_port=3306))
SLICE_PORTS = (SlicePort(name="web", port=8080), SlicePort(name="mysql", port=3306))
SHOP = Selection(Target(NAMESPACE, "shop"))


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with gathered(tmp_path) as fleet:
        yield fleet


@pytest.fixture
def pair(fleet: Fleet) -> tuple[Member, Member]:
    """A meshed client and a meshed server behind a Service, both configured."""
    server, client = fleet.member("web-0", "web"), fleet.member("client-0", "client")
    server.http(8080)
    server.echo(3306, greeting=b"5.7 ready")
    fleet.announce(server, ports=(8080, 3306))
    fleet.announce(client, ports=(9000,))
    fleet.discovery.put(service("web", VIP, ports=PORTS), endpoint_slice("web", server.address, ports=SLICE_PORTS))
    for port in PORTS:
        fleet.router.service(VIP, port.port, f"{server.address}:{port.target_port}")
    fleet.discovery.start()
    fleet.configured(client)
    return client, server


def switch(sidecar: Pod) -> float:
    """What the proxy's runtime says about `autotls.tap` now."""
    entries = json.loads(sidecar.admin("/runtime"))["entries"]
    return float(entries["autotls.tap"]["final_value"]) if "autotls.tap" in entries else 0


def tapped(fleet: Fleet, selection: Selection, *members: Member) -> Tap:
    tap = fleet.discovery.tap(selection)
    for member in members:
        eventually(lambda m=member: switch(m.proxy) == 1_000_000, what="the switch is on")
    return tap


def seen(tap: Tap, count: int) -> list[Entry]:
    eventually(lambda: len(tap.seen()) >= count, what=f"{count} entries")
    return sorted(tap.seen(), key=lambda entry: (entry.protocol, entry.direction, entry.time))


def raw_request(network: Network, address: str, request: bytes) -> bytes:
    with network.connect(address, 80) as connection:
        connection.sendall(request)
        return connection.recv(4096)


def test_while_nobody_taps_no_proxy_says_a_word_and_tapping_another_pod_changes_nothing(
    fleet: Fleet, pair: tuple[Member, Member]
) -> None:
    client, server = pair
    fates = [SINK_ENTRIES.labels(fate)._value for fate in ("read", "unwanted", "lost")]
    before, streams = sum(fate.get() for fate in fates), SINK_STREAMS._value.get()
    tap = fleet.discovery.tap(Selection(Target(POD, "shop", "somebody-else")))
    for _ in range(20):
        assert http_get(client.network, VIP, 80, "/quiet")[0] == 200
    eventually(lambda: server.proxy.metric("envoy_autotls_rq", dir="inbound", code="200") == 20)
    # Whatever they had logged would come before what a tap of theirs logs now.
    mine = tapped(fleet, SHOP, client, server)
    http_get(client.network, VIP, 80, "/loud")
    assert {entry.path for entry in seen(mine, 2)} == {"/loud"}
    assert sum(fate.get() for fate in fates) == before + 2
    assert SINK_STREAMS._value.get() > streams
    assert not tap.seen()


def test_a_request_and_a_connection_are_told_by_both_proxies_with_names_and_identities(
    fleet: Fleet, pair: tuple[Member, Member]
) -> None:
    client, server = pair
    tap = tapped(fleet, SHOP, client, server)
    assert http_get(client.network, VIP, 80, "/cart?card=4111")[0] == 200
    with client.network.connect(VIP, 3306) as connection:
        assert connection.recv(100) == b"5.7 ready"
    inbound, outbound, inbound_tcp, outbound_tcp = seen(tap, 4)
    for entry in (inbound, outbound):
        assert (entry.method, entry.path, entry.status, entry.protocol) == ("GET", "/cart?…", 200, "HTTP/1.1")
        assert entry.authority == "test"
        assert entry.latency_ms > 0
    for entry in (outbound, outbound_tcp):
        assert (entry.tls, entry.tls_version, entry.peer) == (True, UPSTREAM_TLS, identity("web"))
        assert (entry.source.pod, entry.source.workload) == ("shop/client-0", "shop/pod/client-0")
        assert entry.destination.pod == "shop/web-0"
    for entry in (inbound, inbound_tcp):
        assert (entry.tls, entry.peer) == (True, identity("client"))
        assert (entry.source.pod, entry.destination.pod) == ("shop/client-0", "shop/web-0")
    assert (outbound.destination.service, outbound.destination.address) == ("shop/web:80", f"{VIP}:80")
    assert outbound_tcp.destination.service == "shop/web:3306"
    assert (inbound.destination.address, inbound_tcp.destination.address) == (
        f"{server.address}:8080",
        f"{server.address}:3306",
    )
    assert (outbound_tcp.sent_bytes, inbound_tcp.sent_bytes) == (9, 9)


def test_a_call_of_grpc_is_told_with_its_own_status(fleet: Fleet, pair: tuple[Member, Member]) -> None:
    client, server = pair
    server.apps[0].__exit__()
    tap = tapped(fleet, SHOP, client, server)
    with serving(server.network, server.address, 8080):
        calls(client.network, VIP, 80, 3)

    def told() -> Counter[tuple[str, int, int | None]]:
        return Counter((entry.direction, entry.status, entry.grpc_status) for entry in tap.seen())

    statuses = {0: 4, grpc.StatusCode.UNIMPLEMENTED.value[0]: 1}
    each = {(end, 200, status): count for end in ("inbound", "outbound") for status, count in statuses.items()}
    eventually(lambda: told() == each, what="each call at both ends")


def test_tapping_one_pod_switches_on_its_proxy_alone_and_closing_switches_it_off_without_touching_a_connection(
    fleet: Fleet, pair: tuple[Member, Member]
) -> None:
    client, server = pair
    modified = "envoy_listener_manager_listener_modified"
    before = [member.proxy.metric(modified) for member in pair]
    with client.network.connect(VIP, 3306) as connection:
        assert connection.recv(100) == b"5.7 ready"
        tap = tapped(fleet, Selection(Target(POD, "shop", "client-0")), client)
        assert switch(server.proxy) == 0
        http_get(client.network, VIP, 80, "/one")
        assert [(entry.direction, entry.path) for entry in seen(tap, 1)] == [("outbound", "/one")]
        tap.close()
        eventually(lambda: switch(client.proxy) == 0, what="the switch is off")
        http_get(client.network, VIP, 80, "/two")
        again = tapped(fleet, SHOP, client, server)
        http_get(client.network, VIP, 80, "/three")
        assert {entry.path for entry in seen(again, 2)} == {"/three"}
        connection.sendall(b"still here")
        assert connection.recv(100) == b"still here"
    assert [member.proxy.metric(modified) for member in pair] == before
    assert all(member.proxy.metric("envoy_listener_manager_total_listeners_draining") == 0 for member in pair)


def test_a_proxy_that_comes_while_it_is_tapped_is_tapped_and_discovery_coming_back_empty_switches_it_off(
    fleet: Fleet, pair: tuple[Member, Member]
) -> None:
    client, server = pair
    tapped(fleet, SHOP, client, server)
    late = fleet.member("late-0", "client")
    fleet.announce(late)
    eventually(lambda: switch(late.proxy) == 1_000_000, what="the switch is on")
    fleet.discovery.stop()
    assert http_get(client.network, VIP, 80, "/")[0] == 200
    assert switch(server.proxy) == 1_000_000
    fleet.discovery.start()
    for member in (client, server, late):
        eventually(lambda m=member: switch(m.proxy) == 0, what="the switch is off")


def test_plaintext_is_told_with_its_reason(fleet: Fleet, pair: tuple[Member, Member]) -> None:
    client, _ = pair
    plain = fleet.member("plain-0", "plain", meshed=False)
    plain.http(8080)
    fleet.announce(plain)
    fleet.discovery.put(service("plain", PLAIN_VIP), endpoint_slice("plain", plain.address))
    fleet.router.service(PLAIN_VIP, 80, f"{plain.address}:8080")
    tap = tapped(fleet, SHOP, client)
    assert http_get(client.network, PLAIN_VIP, 80, "/")[0] == 200
    assert http_get(client.network, plain.address, 8080, "/")[0] == 200
    by_service, by_address = seen(tap, 2)
    assert {(entry.tls, entry.reason, entry.protocol) for entry in tap.seen()} == {(False, "not_meshed", "TCP")}
    assert by_service.destination.service == "shop/plain:80"
    assert by_address.destination.pod == "shop/plain-0"


def test_a_server_that_is_gone_is_told_as_what_the_client_got(fleet: Fleet, pair: tuple[Member, Member]) -> None:
    client, server = pair
    tap = tapped(fleet, SHOP, client, server)
    server.apps[0].__exit__()
    assert http_get(client.network, VIP, 80, "/gone")[0] == 503
    inbound, outbound = seen(tap, 2)
    assert (inbound.status, inbound.flags) == (503, ("UF",))
    assert (outbound.status, outbound.tls) == (503, True)


def test_a_hostile_request_is_told_without_its_query_and_without_breaking_what_comes_after(
    fleet: Fleet, pair: tuple[Member, Member]
) -> None:
    client, server = pair
    tap = tapped(fleet, SHOP, client, server)
    long = b"/" + b"a" * 8192
    for path in (b"/<script>alert(1)</script>", b"/\xff\xfe\x80bytes", long, b"/x?token=secret"):
        raw_request(
            client.network,
            VIP,
            b"GET " + path + b" HTTP/1.1\r\nhost: web\r\nx-envoy-original-path: /forged\r\n"
            b"user-agent: secret\r\nx-request-id: 0\r\nconnection: close\r\n\r\n",
        )
    assert http_get(client.network, VIP, 80, "/after")[0] == 200
    eventually(lambda: sum(entry.path == "/after" for entry in tap.seen()) == 2, what="the entry after them")

    def told() -> list[str]:
        return [entry.path for entry in tap.seen() if entry.direction == "outbound"]

    # Each of them at both ends, or refused by the first proxy, which tells that too.
    outbound = eventually(lambda: len(paths := told()) >= 5 and paths, what="all five")
    assert "/<script>alert(1)</script>" in outbound
    assert long[:1024].decode() in outbound
    assert "/x?…" in outbound
    assert "secret" not in repr(tap.seen())
    assert "forged" not in repr(tap.seen())
    assert len(outbound) == 5
