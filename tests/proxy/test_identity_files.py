"""The identity files: absent, late, renewed, with new roots."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from tests.proxy.certificates import Authority, Leaf, client_context, spiffe, swap_identity
from tests.proxy.namespaces import App, Network, eventually
from tests.proxy.pod import Pod

pytestmark = pytest.mark.envoy

Dial = Callable[..., ssl.SSLSocket]


@pytest.fixture
def dial(client: Network, server: Network, tmp_path: Path) -> Dial:
    def connect(leaf: Leaf, roots: bytes) -> ssl.SSLSocket:
        plain = client.connect(server.ipv4, 15108)
        try:
            return client_context(leaf, roots, "autotls-tcp", tmp_path).wrap_socket(plain, server_hostname="8080")
        except BaseException:
            plain.close()
            raise

    return connect


def serial(connection: ssl.SSLSocket) -> int:
    certificate = connection.getpeercert(binary_form=True)
    assert certificate is not None
    return x509.load_der_x509_certificate(certificate).serial_number


def echoes(connection: ssl.SSLSocket, data: bytes = b"hello") -> bool:
    connection.sendall(data)
    return connection.recv(100) == data


@pytest.mark.parametrize("folder", ["empty", "as the kubelet leaves it when an optional Secret is missing"])
def test_without_files_the_pod_is_ready_and_refuses_and_late_files_are_picked_up(
    make_pod: Callable[..., Pod], server: Network, dial: Dial, authority: Authority, folder: str
) -> None:
    pod = make_pod()
    if folder != "empty":
        swap_identity(pod.identity, {})
    pod.start()
    envoy = pod.envoy_pid
    mine, other = authority.leaf(spiffe("server")), authority.leaf(spiffe("client"))
    with App(server, server.ipv4, 8080) as app:
        with pytest.raises((ssl.SSLError, ConnectionError)), dial(other, authority.pem) as connection:
            echoes(connection)
        # Envoy dials the app in vain here (it has no TLS socket whose handshake could be waited for); no byte passes.
        assert app.requests == []
        assert pod.status("/ready")[0] == 200
        swap_identity(pod.identity, mine.files())

        def served() -> bool:
            with dial(other, authority.pem) as connection:
                return serial(connection) == mine.serial and echoes(connection)

        assert eventually(served)
    assert pod.envoy_pid == envoy


def test_renewal_is_served_without_a_restart_and_open_connections_live(
    make_pod: Callable[..., Pod], server: Network, dial: Dial, authority: Authority
) -> None:
    pod = make_pod()
    first, other = authority.leaf(spiffe("server")), authority.leaf(spiffe("client"))
    swap_identity(pod.identity, first.files())
    pod.start()
    envoy = pod.envoy_pid
    with App(server, server.ipv4, 8080), dial(other, authority.pem) as long_lived:
        assert serial(long_lived) == first.serial
        for _ in range(3):
            renewed = authority.leaf(spiffe("server"))
            swap_identity(pod.identity, renewed.files())

            def served(expected: int = renewed.serial) -> bool:
                with dial(other, authority.pem) as connection:
                    return serial(connection) == expected and echoes(connection)

            assert eventually(served)
            assert echoes(long_lived)
    assert pod.envoy_pid == envoy


def test_a_second_root_is_trusted_from_the_swap_on_and_the_old_one_until_it_leaves(
    make_pod: Callable[..., Pod], server: Network, dial: Dial, authority: Authority
) -> None:
    new = Authority("next root")
    both = authority.pem + new.pem
    old_client, new_client = authority.leaf(spiffe("client")), new.leaf(spiffe("client"))
    pod = make_pod()
    swap_identity(pod.identity, authority.leaf(spiffe("server")).files())
    pod.start()

    def accepted(leaf: Leaf) -> bool:
        try:
            with dial(leaf, both) as connection:
                return echoes(connection)
        except (ssl.SSLError, ConnectionError):
            return False

    with App(server, server.ipv4, 8080):
        assert accepted(old_client)
        assert not accepted(new_client)
        swap_identity(pod.identity, authority.leaf(spiffe("server"), roots=both).files())
        assert eventually(lambda: accepted(new_client))
        assert accepted(old_client)
        swap_identity(pod.identity, new.leaf(spiffe("server"), roots=new.pem).files())
        assert eventually(lambda: not accepted(old_client))
        assert accepted(new_client)


def test_a_half_written_pair_keeps_the_one_before(
    make_pod: Callable[..., Pod], server: Network, dial: Dial, authority: Authority
) -> None:
    pod = make_pod()
    good, other, later = (authority.leaf(spiffe(name)) for name in ("server", "client", "server"))
    swap_identity(pod.identity, good.files())
    pod.start()
    swap_identity(pod.identity, {**good.files(), "tls.key": other.key})
    assert eventually(lambda: "Failed to load" in pod.log() or "does not match" in pod.log().lower())
    with App(server, server.ipv4, 8080):
        with dial(other, authority.pem) as connection:
            assert serial(connection) == good.serial
            assert echoes(connection)
        swap_identity(pod.identity, later.files())

        def served() -> bool:
            with dial(other, authority.pem) as connection:
                return serial(connection) == later.serial

        assert eventually(served)
    assert "PRIVATE KEY" not in pod.log()
