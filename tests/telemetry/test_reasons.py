"""Which cause a fallback had, from counters alone; tests/discovery/test_reasons.py has them from real Envoys."""

from __future__ import annotations

import pytest

from mesh.reasons import Plaintext
from telemetry.reasons import Attempts, attempts, cluster_label, own_fault, refine, svc_of, turned_away

CLUSTER = "shop/web_80"
FAILED = "envoy_cluster_upstream_cx_connect_fail"


def test_counters_are_added_up_by_cluster() -> None:
    here, elsewhere = {"envoy_cluster_name": CLUSTER}, {"envoy_cluster_name": "shop/db_5432"}
    found = attempts(
        [
            (FAILED, here, 5),
            ("envoy_cluster_upstream_cx_connect_timeout", here, 1),
            ("envoy_cluster_ssl_fail_verify_san", here, 2),
            ("envoy_cluster_ssl_connection_error", here, 1),
            ("envoy_cluster_ssl_handshake", here, 100),
            ("envoy_autotls_rq", {"svc": "shop/web:80"}, 7),
            (FAILED, elsewhere, 9),
        ]
    )
    assert found == {CLUSTER: Attempts(5, 0, 1, 3), "shop/db_5432": Attempts(failed=9)}


@pytest.mark.parametrize(
    ("svc", "label"),
    [
        ("shop/web:80", "shop/web_80"),
        ("shop/web:80/v6", "shop/web_80/v6"),
        ("pod/10.0.0.1:8080", "pod/10_0_0_1_8080"),
        ("pod/[fd00::1]:8080", "pod/[fd00__1]_8080"),
    ],
)
def test_the_name_of_a_cluster_as_envoy_writes_it(svc: str, label: str) -> None:
    assert cluster_label(svc) == label
    assert svc_of(label) == svc


@pytest.mark.parametrize(
    "label", ["discovery", "passthrough", "inbound_app", "", "shop/web", "shop/web_http", "pod/web_80/x"]
)
def test_a_cluster_that_discovery_did_not_make_is_no_service(label: str) -> None:
    assert svc_of(label) == ""


@pytest.mark.parametrize(
    ("counted", "server_without_identity", "expected"),
    [
        pytest.param(Attempts(), False, Plaintext.TLS_FAILED, id="nothing counted"),
        pytest.param(Attempts(), True, Plaintext.TLS_FAILED, id="nothing counted, the server has no identity"),
        pytest.param(Attempts(failed=3, no_identity=1), False, Plaintext.NO_IDENTITY_CLIENT, id="nothing to show"),
        pytest.param(Attempts(failed=3, handshake=3), False, Plaintext.HANDSHAKE_FAILED, id="every handshake failed"),
        pytest.param(Attempts(failed=4, handshake=2), True, Plaintext.HANDSHAKE_FAILED, id="half of them"),
        pytest.param(Attempts(failed=5, handshake=2), False, Plaintext.UNREACHABLE, id="most were refused"),
        pytest.param(Attempts(failed=5, handshake=2), True, Plaintext.NO_IDENTITY_SERVER, id="most were closed"),
        pytest.param(Attempts(failed=5, timed_out=5), True, Plaintext.UNREACHABLE, id="no answer at all"),
    ],
)
def test_the_cause_of_most_attempts_is_the_reason(
    counted: Attempts, server_without_identity: bool, expected: Plaintext
) -> None:
    assert refine(counted, server_without_identity=server_without_identity) is expected


def test_a_server_that_closes_connections_for_want_of_an_identity_says_so() -> None:
    name = "envoy_listener_server_ssl_socket_factory_downstream_context_secrets_not_ready"
    assert turned_away([(name, {"envoy_listener_address": "inbound_mtls"}, 2)])
    assert not turned_away([(name, {"envoy_listener_address": "inbound_mtls"}, 0)])


@pytest.mark.parametrize(
    ("loaded", "received", "expected"),
    [
        (0, 0, Plaintext.NO_IDENTITY_CLIENT),
        (1, 0, Plaintext.DISCOVERY_UNAVAILABLE),
        (1, 1, None),
        (0, 1, None),
    ],
)
def test_why_a_proxy_was_never_configured(loaded: int, received: int, expected: Plaintext | None) -> None:
    scrape = [
        ("envoy_sds_update_success", {"envoy_xds_resource_name": "roots"}, 1.0),
        ("envoy_sds_update_success", {"envoy_xds_resource_name": "leaf"}, float(loaded)),
        ("envoy_listener_manager_lds_update_success", {}, float(received)),
    ]
    assert own_fault(scrape) is expected
