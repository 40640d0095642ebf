"""15120: readiness and metrics, and nothing else of the admin interface."""

from __future__ import annotations

import stat
from collections.abc import Callable

import pytest

from tests.proxy.namespaces import Network, http_get
from tests.proxy.pod import Pod

pytestmark = pytest.mark.envoy


def test_ready_and_metrics_answer_on_both_families_without_any_identity_file(
    make_pod: Callable[..., Pod], server: Network, client: Network
) -> None:
    make_pod().start()
    for address in (server.ipv4, server.ipv6):
        assert http_get(client, address, 15120, "/ready") == (200, "LIVE\n")
        status, body = http_get(client, address, 15120, "/metrics")
        assert status == 200
        assert "envoy_server_uptime" in body


def test_nothing_else_of_the_admin_interface_can_be_reached(make_pod: Callable[..., Pod]) -> None:
    pod = make_pod().start()
    for path in (
        "/", "/quitquitquit", "/config_dump", "/certs", "/stats", "/stats/prometheus", "/ready/", "/ready/../certs",
        "/metrics/../config_dump", "//ready", "/READY", "/ready%2f..%2fcerts", "/clusters", "/logging?level=trace",
    ):  # fmt: skip
        assert pod.status(path)[0] in (400, 404), path
    for method in ("POST", "PUT", "DELETE"):
        assert pod.status("/ready", method)[0] == 404
        assert pod.status("/metrics", method)[0] == 404
    assert pod.status("/ready")[0] == 200


def test_the_admin_socket_opens_for_the_proxy_alone(make_pod: Callable[..., Pod]) -> None:
    pod = make_pod().start()
    found = (pod.run_folder / "admin.sock").stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (2102, 0o600)
    assert stat.S_IMODE((pod.run_folder / "envoy.yaml").stat().st_mode) == 0o600


def test_only_the_status_and_the_mutual_tls_port_are_open_to_others(
    make_pod: Callable[..., Pod], server: Network, client: Network
) -> None:
    make_pod().start()
    reachable: list[int] = []
    for port in range(15100, 15200):
        try:
            client.connect(server.ipv4, port).close()
        except ConnectionRefusedError:
            continue
        reachable.append(port)
    assert reachable == [15108, 15120]
