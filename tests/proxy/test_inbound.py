"""15108: who gets in by mutual TLS, to which ports, and what the app sees."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tests.proxy.certificates import Authority, Leaf, client_context, spiffe, swap_identity
from tests.proxy.namespaces import App, Network, closed, eventually, http_answer
from tests.proxy.pod import REPOSITORY, Pod

pytestmark = pytest.mark.envoy

APP_PORT = 8080
Dial = Callable[..., ssl.SSLSocket]


@pytest.fixture
def pod(make_pod: Callable[..., Pod], authority: Authority) -> Pod:
    """A running pod with the identity `server`."""
    pod = make_pod()
    swap_identity(pod.identity, authority.leaf(spiffe("server")).files())
    return pod.start()


@pytest.fixture
def dial(client: Network, authority: Authority, tmp_path: Path) -> Dial:
    """Opens mutual TLS to 15108 as `client`; everything can be made wrong one by one."""
    own = authority.leaf(spiffe("client"))

    def connect(
        address: str,
        sni: str | None = str(APP_PORT),
        *,
        alpn: str = "autotls-tcp",
        leaf: Leaf | None = own,
        newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ) -> ssl.SSLSocket:
        plain = client.connect(address, 15108)
        try:
            context = client_context(leaf, authority.pem, alpn, tmp_path)
            context.maximum_version = newest
            # bytes: no IDNA rules on the way, so that any spelling gets out.
            return context.wrap_socket(plain, server_hostname=None if sni is None else sni.encode())
        except BaseException:
            plain.close()
            raise

    return connect


def refused(dial: Dial, *arguments: object, **options: object) -> bool:
    """True when not one byte of an app comes back; in TLS 1.3 a client learns of its refusal at the first read."""
    try:
        with dial(*arguments, **options) as connection:
            connection.sendall(b"hello")
            return connection.recv(100) == b""
    except (ssl.SSLError, ConnectionError):
        return True


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_another_identity_reaches_the_app_which_sees_the_pods_own_address(
    pod: Pod, server: Network, dial: Dial, family: str
) -> None:
    address = getattr(server, family)
    # Bound to the pod's address alone: also proves that the proxy dials it and not the loopback.
    with App(server, address, APP_PORT) as app, dial(address) as connection:
        connection.sendall(b"hello")
        assert connection.recv(100) == b"hello"
        assert app.peers == [address]
        certificate = connection.getpeercert()
        assert certificate
        assert certificate["subjectAltName"] == (("URI", spiffe("server")),)


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_http_goes_through_and_carries_the_callers_verified_identity(
    pod: Pod, server: Network, dial: Dial, family: str
) -> None:
    address = getattr(server, family)
    with App(server, address, APP_PORT, http=True) as app, dial(address, alpn="autotls-http") as connection:
        connection.sendall(
            b"GET /a//b/../c?d HTTP/1.1\r\nHost: app\r\nX-CamelCase: 1\r\nX-Forwarded-Client-Cert: URI=forged\r\n\r\n"
        )
        status, _, body = http_answer(connection)
        assert (status, body) == (200, address)
        (request,) = app.requests
        assert request.startswith(b"GET /a//b/../c?d HTTP/1.1")
        assert b"X-CamelCase: 1" in request
        assert f"URI={spiffe('client')}".encode() in request
        assert b"forged" not in request


def test_http2_without_tls_of_its_own_stays_http2(pod: Pod, server: Network, dial: Dial) -> None:
    def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
        return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload

    # RFC 7541: indexed :method GET, :scheme http, :path /, and a literal :authority "app".
    headers = b"\x82\x86\x84\x01\x03app"
    with App(server, server.ipv4, APP_PORT) as app, dial(server.ipv4, alpn="autotls-http") as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + frame(1, 0x5, 1, headers))
        eventually(lambda: app.requests and app.requests[0].startswith(b"PRI * HTTP/2.0"))


def test_a_server_that_speaks_first_is_heard_at_once(pod: Pod, server: Network, dial: Dial) -> None:
    with App(server, server.ipv4, 3306, greeting=b"5.7 ready"), dial(server.ipv4, "3306") as connection:
        assert connection.recv(100) == b"5.7 ready"


def test_an_app_on_the_loopback_stays_unreachable(pod: Pod, server: Network, dial: Dial) -> None:
    with App(server, "127.0.0.1", APP_PORT) as app:
        assert refused(dial, server.ipv4)
        assert app.peers == []


def test_who_cannot_prove_an_identity_of_the_trust_domain_is_refused(
    pod: Pod, server: Network, dial: Dial, authority: Authority
) -> None:
    stranger = Authority("stranger")
    wrong = {
        "no certificate": None,
        "another root": stranger.leaf(spiffe("client")),
        "another trust domain": authority.leaf(spiffe("client", "other.example")),
        "a trust domain that only begins like ours": authority.leaf(spiffe("client", "cluster.local.evil.example")),
        "another scheme": authority.leaf("https://cluster.local/ns/test/sa/client"),
        "expired": authority.leaf(spiffe("client"), valid_until=timedelta(minutes=-5)),
        "not valid yet": authority.leaf(spiffe("client"), valid_from=timedelta(minutes=30)),
    }
    with App(server, server.ipv4, APP_PORT, greeting=b"secret") as app:
        for what, leaf in wrong.items():
            for alpn in ("autotls-tcp", "autotls-http"):
                assert refused(dial, server.ipv4, leaf=leaf, alpn=alpn), (what, alpn)
        assert app.peers == []
        with dial(server.ipv4) as connection:
            assert connection.recv(100) == b"secret"


ODD_NAMES = [
    "015108", "+15108", " 15108", "15108 ", "15108.", "0x3b04", "15108\t", "15120", "15100", "15199", "15106",
    "15101", "1.2.3.4:80", "10.203.0.1:8080", "8080:8080", "0", "00", "65536", "99999", "123456", "-1", "08080",
    " 8080",
    "8080 ", "8080.", "+8080", "1e3", "http", "EIGHTY", "a" * 63, "*", "[::1]:8080", "127.0.0.1:15120", "%3A80",
    "8080\n",
]  # fmt: skip


def test_only_a_plain_port_number_outside_our_own_range_is_dialled(pod: Pod, server: Network, dial: Dial) -> None:
    # Real servers wait on ports of the forbidden range and on the one the odd spellings could mean.
    with (
        App(server, server.ipv4, APP_PORT, greeting=b"app") as app,
        App(server, server.ipv4, 15150, greeting=b"own") as own,
    ):
        for alpn in ("autotls-tcp", "autotls-http"):
            for name in [*ODD_NAMES, "15150", "015150", "+15150", None]:
                assert refused(dial, server.ipv4, name, alpn=alpn), (name, alpn)
        assert (app.peers, own.peers) == ([], [])
        with dial(server.ipv4) as connection:
            assert connection.recv(100) == b"app"
    eventually(lambda: pod.metric("envoy_listener_no_filter_chain_match") >= 2 * len(ODD_NAMES))


@pytest.mark.parametrize("declared", ["8080", "9,8080", ""])
def test_until_discovery_has_answered_only_declared_ports_are_dialled(
    make_pod: Callable[..., Pod], authority: Authority, server: Network, dial: Dial, declared: str
) -> None:
    pod = make_pod(AUTOTLS_PORTS=declared)
    swap_identity(pod.identity, authority.leaf(spiffe("server")).files())
    pod.start()
    with (
        App(server, server.ipv4, APP_PORT, greeting=b"app") as app,
        App(server, server.ipv4, 9999, greeting=b"own") as own,
    ):
        assert refused(dial, server.ipv4, "9999")
        # HTTP is answered by the proxy itself.
        with dial(server.ipv4, "9999", alpn="autotls-http") as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
            assert http_answer(connection)[0] == 503
        if declared:
            with dial(server.ipv4) as connection:
                assert connection.recv(100) == b"app"
        else:
            assert refused(dial, server.ipv4)
            assert app.peers == []
        assert own.peers == []


def test_the_port_expression_is_exactly_1_to_65535_without_15100_to_15199() -> None:
    (expression,) = re.findall(r'regex: "(\[1-9\][^"]+)"', (REPOSITORY / "proxy/bootstrap.yaml.in").read_text())
    allowed = {port for port in range(70000) if re.fullmatch(expression, str(port))}
    assert allowed == set(range(1, 65536)) - set(range(15100, 15200))
    assert not any(re.fullmatch(expression, f"{prefix}{port}") for port in range(70000) for prefix in ("0", "00"))


@pytest.mark.parametrize("alpn", ["", "http/1.1", "h2", "autotls-tcp2", "autotls"])
def test_other_protocols_on_15108_are_closed(pod: Pod, server: Network, dial: Dial, alpn: str) -> None:
    with App(server, server.ipv4, APP_PORT, greeting=b"app") as app:
        assert refused(dial, server.ipv4, alpn=alpn)
        assert app.peers == []


def test_plaintext_on_15108_is_closed(pod: Pod, server: Network, client: Network) -> None:
    with client.connect(server.ipv4, 15108) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
        assert closed(connection)


def test_a_refusing_app_is_a_503_for_http_and_a_close_for_tcp(pod: Pod, server: Network, dial: Dial) -> None:
    with dial(server.ipv4, "9", alpn="autotls-http") as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
        assert http_answer(connection)[0] == 503
    assert refused(dial, server.ipv4, "9")


def test_plaintext_to_the_app_is_untouched(pod: Pod, server: Network, client: Network) -> None:
    with App(server, server.ipv4, APP_PORT) as app, client.connect(server.ipv4, APP_PORT) as connection:
        connection.sendall(b"ping")
        assert connection.recv(100) == b"ping"
        assert app.peers == [client.ipv4]


def test_connections_are_counted_with_the_peers_identity(pod: Pod, server: Network, dial: Dial) -> None:
    by = {"dir": "inbound", "peer": spiffe("client"), "port": str(APP_PORT)}
    with App(server, server.ipv4, APP_PORT), dial(server.ipv4) as connection:
        connection.sendall(b"hello")
        assert connection.recv(100) == b"hello"
    eventually(lambda: pod.metric("envoy_autotls_rq", **by, proto="TCP", tls="TLSv1.3", code="-") == 1)
    for name in ("envoy_autotls_rx", "envoy_autotls_tx"):
        eventually(lambda name=name: pod.metric(name, **by) == 5)


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_who_is_refused_is_counted_as_a_failed_handshake_and_never_as_the_peer_it_claims(
    pod: Pod, server: Network, dial: Dial, newest: ssl.TLSVersion
) -> None:
    stranger = Authority("stranger").leaf(spiffe("client"))
    failed = "envoy_listener_ssl_fail_verify_error"
    with App(server, server.ipv4, APP_PORT):
        assert refused(dial, server.ipv4, leaf=stranger, newest=newest)
        eventually(lambda: pod.metric(failed, envoy_listener_address="inbound_mtls") == 1)
        with dial(server.ipv4) as connection:
            connection.sendall(b"x")
            assert connection.recv(100) == b"x"
    eventually(lambda: pod.metric("envoy_autotls_rq", dir="inbound") >= 1)
    assert pod.metric("envoy_autotls_rq", dir="inbound") == 1
