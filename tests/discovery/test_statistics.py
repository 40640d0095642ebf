"""What a real Envoy counts of what discovery configured: labels, limits, and text that nobody can break."""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from discovery.kinds import ServicePort, SlicePort
from mesh import series
from telemetry.reasons import cluster_label
from tests.discovery.fleet import Fleet, Member, gathered
from tests.discovery.objects import endpoint_slice, identity, service
from tests.proxy.namespaces import eventually, http_get

pytestmark = pytest.mark.envoy

VIP = "10.96.7.11"
PORTS = (ServicePort(port=80, name="http", target_port=8080), ServicePort(port=90, name="tcp", target_port=9090))
SLICE_PORTS = (SlicePort(name="http", port=8080), SlicePort(name="tcp", port=9090))
SVC = "shop/web:80"
# One line of Prometheus' text format: name, labels with escaped values, value (prometheus.io, Exposition formats).
SAMPLE = re.compile(r'[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-zA-Z_]\w*="(\\.|[^"\\])*",?)*\})? [0-9.e+\-]+')


# Everything that may be in the text: what is read (telemetry/, cli/), or says how the proxy itself is.
KEPT = re.compile(
    r"envoy_(autotls_.*|(server|cluster_manager|listener_manager|control_plane|sds)_.*"
    r"|listener_(ssl_(handshake|fail_verify_.*|connection_error|certificate_.*)|downstream_cx_(active|total)"
    r"|no_filter_chain_match|server_ssl_socket_factory_downstream_context_secrets_not_ready)"
    r"|cluster_(upstream_cx_(active|total|connect_fail|connect_timeout|[rt]x_bytes_total)"
    r"|ssl_(handshake|connection_error|fail_verify_.*)|outlier_detection_ejections_(active|enforced_total)"
    r"|client_ssl_socket_factory_upstream_context_secrets_not_ready))"
)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with gathered(tmp_path) as fleet:
        yield fleet


@pytest.fixture
def client(fleet: Fleet) -> Member:
    """A meshed client of a meshed `web`, configured."""
    server, client = fleet.member("web-0", "web"), fleet.member("client-0", "client")
    server.http(8080)
    server.echo(9090)
    fleet.announce(server, ports=(8080, 9090))
    fleet.announce(client, ports=(9000,))
    fleet.discovery.put(service("web", VIP, ports=PORTS), endpoint_slice("web", server.address, ports=SLICE_PORTS))
    for port in PORTS:
        fleet.router.service(VIP, port.port, f"{server.address}:{port.target_port}")
    fleet.discovery.start()
    fleet.configured(client)
    fleet.configured(server)
    return client


def ask(connection: socket.socket, authority: bytes, path: bytes = b"/") -> int:
    """The status of one request on a kept connection."""
    connection.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: " + authority + b"\r\n\r\n")
    response = http.client.HTTPResponse(connection)
    response.begin()
    response.read()
    return response.status


def scrape(member: Member) -> str:
    status, text = member.proxy.status("/metrics")
    assert status == 200
    return text


def count(text: str, name: str) -> int:
    return sum(line.startswith(f"{series.EXPOSED}{name}{{") for line in text.splitlines())


def anonymous_kb(pid: int) -> int:
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1])


def test_both_proxies_count_requests_bytes_and_latency_by_who_and_whom(fleet: Fleet, client: Member) -> None:
    for _ in range(3):
        assert http_get(client.network, VIP, 80, "/")[0] == 200
    server = fleet.members["web-0"]
    outbound = {"dir": "outbound", "svc": SVC, "dst": "shop/pod/web-0", "reason": "", "tls": "TLSv1.2"}
    inbound = {"dir": "inbound", "peer": identity("client"), "port": "8080"}

    def metric(member: Member, name: str, **labels: str) -> float:
        return member.proxy.metric(series.EXPOSED + name, **labels)

    said = {"proto": "HTTP/1.1", "code": "200"}
    eventually(lambda: metric(client, series.REQUESTS, **outbound, **said, peer=identity("web"), grpc="") == 3)
    eventually(lambda: metric(server, series.REQUESTS, **inbound, **said, tls="TLSv1.2") == 3)
    body = 3 * len(server.address)
    eventually(lambda: metric(server, series.SENT, **inbound) == body)
    assert metric(server, series.RECEIVED, **inbound) == 0
    by_authority = {"authority": "test", "code": "200", "grpc": ""}
    # Histograms are merged every five seconds (stats_flush_interval).
    eventually(lambda: metric(client, f"{series.REQUEST_US}_count", **outbound, **by_authority) == 3)
    eventually(lambda: metric(server, f"{series.REQUEST_US}_count", **inbound) == 3)


def test_bytes_of_a_service_are_counted_while_a_connection_lasts(client: Member) -> None:
    labels = {series.CLUSTER: cluster_label("shop/web:90")}
    with client.network.connect(VIP, 90) as connection:
        connection.sendall(b"x" * 1000)
        assert len(connection.recv(1000, socket.MSG_WAITALL)) == 1000
        # Of what the application said, not of what TLS made of it.
        for name in (series.CLUSTER_SENT, series.CLUSTER_RECEIVED):
            eventually(lambda name=name: client.proxy.metric(name, **labels) == 1000, what=name)


def test_nothing_is_kept_that_nobody_reads(fleet: Fleet, client: Member) -> None:
    assert http_get(client.network, VIP, 80, "/")[0] == 200
    with client.network.connect(VIP, 90) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
    fleet.members["web-0"].apps[0].__exit__()
    assert http_get(client.network, VIP, 80, "/")[0] == 503
    eventually(lambda: client.outbound(SVC, code="503") == 1)
    text = scrape(client)
    names = {re.split("[{ ]", line)[0] for line in text.splitlines() if line and not line.startswith("#")}
    assert {name for name in names if not KEPT.fullmatch(name)} == set()
    clusters = set(re.findall(r'envoy_cluster_upstream_cx_active\{envoy_cluster_name="([^"]*)"', text))
    assert clusters <= {"inbound_app", "passthrough"}
    for dialled in ("upstream_cx_connect_fail", "ssl_handshake", "outlier_detection_ejections_enforced_total"):
        assert f'envoy_cluster_{dialled}{{envoy_cluster_name="{cluster_label(SVC)}"}}' in text


def test_ten_thousand_authorities_are_cut_off_visibly_and_the_traffic_is_still_counted_in_full(client: Member) -> None:
    limit = series.LIMITS["authority"].histograms
    durations = f"{series.REQUEST_US}_count"
    with client.network.connect(VIP, 80) as connection:
        for number in range(2 * limit):
            assert ask(connection, b"host-%d.example" % number) == 200
        eventually(lambda: count(scrape(client), durations) == limit)
        # After a scrape: its text is what the proxy needs most memory for.
        full = anonymous_kb(client.proxy.envoy_pid)
        dropped = eventually(lambda: client.proxy.metric(series.DROPPED_HISTOGRAMS))
        for number in range(2 * limit, 10_000):
            assert ask(connection, b"host-%d.example" % number) == 200
    eventually(lambda: client.outbound(SVC, code="200") == 10_000)
    eventually(lambda: client.proxy.metric(series.DROPPED_HISTOGRAMS) > dropped)
    assert count(scrape(client), durations) == limit
    # What came after the limit costs nothing: not two megabytes for eight thousand more names.
    assert anonymous_kb(client.proxy.envoy_pid) - full < 2048
    assert len(scrape(client)) < 8_000_000


@pytest.mark.parametrize(
    "authority",
    [
        pytest.param(b'a"b\\c{d="e"} 5', id="quotes and braces"),
        pytest.param(b"a\\", id="ends in a backslash"),
        pytest.param(b"\xff\xfe\xc3(", id="no UTF-8"),
        pytest.param(b"a\tb\x7f\x1b[31m", id="control characters"),
        pytest.param(b"<script>alert(1)</script>", id="HTML"),
        pytest.param(b"a.b|c#d,e:f;g", id="separators of other formats"),
        pytest.param(b"x" * 8192, id="8 KB"),
    ],
)
def test_no_authority_breaks_the_metrics(client: Member, authority: bytes) -> None:
    """Each is counted or refused; the text stays one that Prometheus reads, line by line."""
    with client.network.connect(VIP, 80) as connection:
        status = ask(connection, authority)
    if status == 200:
        eventually(lambda: client.outbound(SVC, code="200") == 1)
    else:
        assert status == 400
    lines = [line for line in scrape(client).split("\n") if line and not line.startswith("#")]
    assert [line for line in lines if not SAMPLE.fullmatch(line)] == []
    for line in lines:
        for value in re.findall(r'authority="((?:\\.|[^"\\])*)"', line):
            assert len(value) <= 2 * 64
