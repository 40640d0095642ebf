"""PID 1 of the sidecar: crash, drain, wait, and the start that does not succeed."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.proxy.certificates import Authority, client_context, spiffe, swap_identity
from tests.proxy.namespaces import App, Network, eventually, http_answer
from tests.proxy.pod import Pod

pytestmark = pytest.mark.envoy


@pytest.fixture
def broken_envoy(tmp_path: Path) -> Path:
    """An Envoy that ends at once."""
    path = tmp_path / "envoy"
    path.write_text("#!/bin/sh\nexit 3\n")
    path.chmod(0o755)
    return path


def mutual_tls(client: Network, server: Network, authority: Authority, folder: Path, alpn: str) -> ssl.SSLSocket:
    context = client_context(authority.leaf(spiffe("client")), authority.pem, alpn, folder)
    return context.wrap_socket(client.connect(server.ipv4, 15108), server_hostname="8080")


def test_a_killed_envoy_is_back_and_leaves_no_zombie(make_pod: Callable[..., Pod]) -> None:
    pod = make_pod().start()
    main = pod.main_pid
    for _ in range(2):
        killed = pod.envoy_pid
        os.kill(killed, signal.SIGKILL)
        eventually(lambda gone=killed: [p for p in pod.children() if p != gone] and pod.status("/ready")[0] == 200)
        assert pod.envoy_pid != killed
    assert pod.main_pid == main
    eventually(lambda: len(pod.children()) == 1)
    assert "event=envoy_ended" in pod.log()
    assert "status=137" in pod.log()


def test_sigterm_without_connections_ends_with_0(make_pod: Callable[..., Pod]) -> None:
    pod = make_pod(AUTOTLS_DRAIN_SECONDS="3600").start()
    pod.terminate()
    assert pod.exit_status() == 0
    assert "event=drain_started connections=0" in pod.log()


def test_sigterm_serves_open_connections_and_ends_when_the_last_one_does(
    make_pod: Callable[..., Pod], server: Network, client: Network, authority: Authority, tmp_path: Path
) -> None:
    pod = make_pod(AUTOTLS_DRAIN_SECONDS="3600")
    swap_identity(pod.identity, authority.leaf(spiffe("server")).files())
    pod.start()
    with App(server, server.ipv4, 8080):
        with mutual_tls(client, server, authority, tmp_path, "autotls-tcp") as connection:
            connection.sendall(b"before")
            assert connection.recv(100) == b"before"
            pod.terminate()
            eventually(lambda: pod.status("/ready") == (503, "DRAINING\n"))
            connection.sendall(b"during")
            assert connection.recv(100) == b"during"
            # New ones are served too: a peer that has not heard yet must not fail.
            with mutual_tls(client, server, authority, tmp_path, "autotls-tcp") as late:
                late.sendall(b"late")
                assert late.recv(100) == b"late"
        assert pod.exit_status() == 0


def test_sigterm_tells_http_peers_to_leave(
    make_pod: Callable[..., Pod], server: Network, client: Network, authority: Authority, tmp_path: Path
) -> None:
    pod = make_pod(AUTOTLS_DRAIN_SECONDS="3600")
    swap_identity(pod.identity, authority.leaf(spiffe("server")).files())
    pod.start()
    with (
        App(server, server.ipv4, 8080, http=True),
        mutual_tls(client, server, authority, tmp_path, "autotls-http") as connection,
    ):
        request = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"
        connection.sendall(request)
        assert http_answer(connection)[1].get("Connection") is None
        pod.terminate()
        eventually(lambda: pod.status("/ready")[0] == 503)
        connection.sendall(request)
        assert http_answer(connection)[1]["Connection"] == "close"
    assert pod.exit_status() == 0


def test_sigterm_does_not_wait_longer_than_the_drain_time(
    make_pod: Callable[..., Pod], server: Network, client: Network, authority: Authority, tmp_path: Path
) -> None:
    pod = make_pod(AUTOTLS_DRAIN_SECONDS="1")
    swap_identity(pod.identity, authority.leaf(spiffe("server")).files())
    pod.start()
    with App(server, server.ipv4, 8080), mutual_tls(client, server, authority, tmp_path, "autotls-tcp") as connection:
        connection.sendall(b"held")
        assert connection.recv(100) == b"held"
        pod.terminate()
        assert pod.exit_status() == 0
    assert "event=drain_ended connections=1" in pod.log()


def test_sigterm_does_not_wait_for_idle_connections_of_peers_to_an_app_that_is_gone(
    make_pod: Callable[..., Pod], server: Network, client: Network, authority: Authority, tmp_path: Path
) -> None:
    pod = make_pod(AUTOTLS_DRAIN_SECONDS="3600")
    swap_identity(pod.identity, authority.leaf(spiffe("server")).files())
    pod.start()
    with mutual_tls(client, server, authority, tmp_path, "autotls-http") as idle:
        with App(server, server.ipv4, 8080, http=True):
            idle.sendall(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
            assert http_answer(idle)[0] == 200
        pod.terminate()
        assert pod.exit_status() == 0


def test_orphans_of_commands_run_in_the_container_are_reaped(make_pod: Callable[..., Pod]) -> None:
    pod = make_pod().start()
    enter = ["nsenter", f"--target={pod.main_pid}", "--pid", "--mount", "sh", "-c", "(sleep 0 & sleep 0 &)"]
    for _ in range(3):
        subprocess.run(enter, check=True, timeout=30)
    eventually(lambda: pod.children() == [pod.envoy_pid])


def test_wait_returns_once_envoy_serves(make_pod: Callable[..., Pod]) -> None:
    pod = make_pod().start(until_ready=False)
    done = pod.wait()
    assert done.returncode == 0
    # A machine too busy to start Envoy in two seconds is no failure of the wait.
    assert "proxy_not_ready_in_time" in done.stderr or pod.status("/ready")[0] == 200


@pytest.mark.parametrize(("mode", "status"), [("optional", 0), ("strict", 1)])
def test_wait_is_for_discovery_where_there_is_an_identity(
    make_pod: Callable[..., Pod], authority: Authority, mode: str, status: int
) -> None:
    pod = make_pod(AUTOTLS_MODE=mode, AUTOTLS_WAIT_SECONDS="2")
    swap_identity(pod.identity, authority.leaf(spiffe("server")).files())
    pod.start()

    def waited_for_discovery() -> bool:
        done = pod.wait()
        assert done.returncode == status
        assert "event=proxy_ready" not in done.stderr
        # On a machine so busy that Envoy's own answer took the two seconds it did not come to that.
        return "event=proxy_not_configured_in_time" in done.stderr

    eventually(waited_for_discovery)


def test_strict_does_not_start_without_discovery_or_an_identity(make_pod: Callable[..., Pod]) -> None:
    pod = make_pod(AUTOTLS_MODE="strict", AUTOTLS_WAIT_SECONDS="2").start()
    assert pod.wait().returncode == 1


def test_an_optional_pod_without_an_identity_does_not_wait_for_discovery(make_pod: Callable[..., Pod]) -> None:
    pod = make_pod().start()

    def returned_ready() -> bool:
        done = pod.wait()
        assert done.returncode == 0
        # There is no discovery here to wait for; on a machine so busy that two seconds were not enough, once more.
        return "event=proxy_ready" in done.stderr

    eventually(returned_ready)


@pytest.mark.parametrize(("mode", "status"), [("optional", 0), ("strict", 1)])
def test_wait_gives_up_after_its_time(make_pod: Callable[..., Pod], mode: str, status: int) -> None:
    done = make_pod(AUTOTLS_MODE=mode, AUTOTLS_WAIT_SECONDS="1").wait()
    assert done.returncode == status
    assert "event=proxy_not_ready_in_time" in done.stderr


def test_wait_never_holds_an_optional_pod_for_longer_than_2_seconds(make_pod: Callable[..., Pod]) -> None:
    done = make_pod(AUTOTLS_WAIT_SECONDS="60").wait()
    assert done.returncode == 0
    assert "name=AUTOTLS_WAIT_SECONDS value=60 allowed='0 to 2 seconds' used='2'" in done.stderr


def test_an_envoy_that_never_starts_is_retried_more_slowly_and_can_be_stopped(
    make_pod: Callable[..., Pod], broken_envoy: Path
) -> None:
    pod = make_pod(envoy=broken_envoy).start(until_ready=False)
    eventually(lambda: "restart_in_seconds=2" in pod.log())
    assert "event=identity_given_up cause=unknown" in pod.log()
    ended = [line for line in pod.log().splitlines() if "event=envoy_ended" in line]
    assert all("status=3 " in line for line in ended), ended
    pod.terminate()
    assert pod.exit_status() == 0


def test_strict_never_gives_up_the_identity(make_pod: Callable[..., Pod], broken_envoy: Path) -> None:
    pod = make_pod(envoy=broken_envoy, AUTOTLS_MODE="strict").start(until_ready=False)
    eventually(lambda: "restart_in_seconds=2" in pod.log())
    assert "identity_given_up" not in pod.log()
    assert "inbound_mtls" in (pod.run_folder / "envoy.yaml").read_text()


def test_a_node_without_inotify_instances_left_keeps_the_apps_connections(
    make_pod: Callable[..., Pod], server: Network, client: Network
) -> None:
    pod = make_pod()
    pod.init()
    # In a user namespace of its own, so that no other process of this machine feels the limit.
    limit = 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"'
    pod.start(before=("unshare", "--user", "--map-root-user", "sh", "-c", limit, "limit"))
    assert "event=identity_given_up cause=inotify_instances_exhausted" in pod.log()
    with App(client, client.ipv4, 7000), server.connect(client.ipv4, 7000) as connection:
        connection.sendall(b"hello")
        assert connection.recv(100) == b"hello"
    with pytest.raises(ConnectionRefusedError):
        client.connect(server.ipv4, 15108)


def test_the_proxy_needs_no_capability_and_no_writable_root(make_pod: Callable[..., Pod]) -> None:
    pod = make_pod().start()
    facts = dict(
        line.split(":\t") for line in Path(f"/proc/{pod.envoy_pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert facts["CapEff"].strip("0") == facts["CapBnd"].strip("0") == ""
    assert facts["NoNewPrivs"] == "1"
    assert set(facts["Uid"].split()) == {"2102"}
    assert "0" in Path(f"/proc/{pod.envoy_pid}/limits").read_text().split("Max core file size")[1].split()[0]
