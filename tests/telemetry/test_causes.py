"""`tls_failed` becomes the cause that the proxies of both ends know."""

import pytest

from telemetry.kinds import PODS
from telemetry.rows import Kind, table
from telemetry.scrape import Meter
from tests.telemetry.proxies import MeshApi
from tests.telemetry.scenes import Counters, deployment_pod

WEB, CLIENT = "web-5d4f8c7b9-0", "client-5d4f8c7b9-0"
FAILED = b'envoy_cluster_upstream_cx_connect_fail{envoy_cluster_name="shop/web_80"} 3\n'
HANDSHAKE = b'envoy_cluster_ssl_connection_error{envoy_cluster_name="shop/web_80"} 3\n'
TURNED_AWAY = b'envoy_listener_server_ssl_socket_factory_downstream_context_secrets_not_ready{x="y"} 2\n'


@pytest.mark.parametrize(
    ("client", "server", "reason"),
    [
        (FAILED, b"", "unreachable"),
        (FAILED + HANDSHAKE, b"", "handshake_failed"),
        (FAILED, TURNED_AWAY, "no_identity_server"),
        (b"", b"", "tls_failed"),
    ],
)
async def test_cause_is_named_in_every_row(client: bytes, server: bytes, reason: str) -> None:
    api = MeshApi()
    api.seed(deployment_pod("web", "10.0.0.2"), deployment_pod("client", "10.0.0.3"))
    fell_back = Counters().outbound("shop/deployment/web", tls=False, reason="tls_failed", authority="web", times=4)
    api.answers = {CLIENT: [Counters(), fell_back, client], WEB: [Counters(), Counters(), server]}
    found = await Meter(api).measure(0.01)
    rows = {kind: table(kind, found.book, 1.0).rows for kind in (Kind.DEPLOYMENT, Kind.AUTHORITY)}
    assert dict(rows[Kind.DEPLOYMENT][1].traffic.plaintext) == {reason: 4}
    assert rows[Kind.DEPLOYMENT][1].traffic.total.received == 400
    assert dict(rows[Kind.AUTHORITY][0].traffic.plaintext) == {reason: 4}


async def test_nobody_is_asked_again_when_all_is_mutual_tls() -> None:
    api = MeshApi()
    api.seed(deployment_pod("web", "10.0.0.2"), deployment_pod("client", "10.0.0.3"))
    api.answers = {CLIENT: [Counters(), Counters().outbound("shop/deployment/web")], WEB: [Counters()]}
    looked: list[str] = []
    api.after_each_scrape = looked.append
    await Meter(api).measure(0.01)
    assert sorted(looked) == [CLIENT, CLIENT, WEB, WEB]
    assert api.requests.count(("GET", PODS)) == 2


LEAF = b'envoy_sds_update_success{envoy_xds_resource_name="leaf"} 1\n'
LISTENERS = b"envoy_listener_manager_lds_update_success{} 2\n"


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        (b"", "no_identity_client"),
        (LEAF, "discovery_unavailable"),
        (LEAF + LISTENERS, "out_of_reach"),
    ],
)
async def test_what_passed_a_proxy_that_was_never_configured_says_so(client: bytes, reason: str) -> None:
    api = MeshApi()
    api.seed(deployment_pod("web", "10.0.0.2"), deployment_pod("client", "10.0.0.3"))
    passed = Counters().outbound("10.0.0.2:8080", svc="passthrough", tls=False, reason="", proto="TCP", times=4)
    api.answers = {CLIENT: [Counters(), passed, client], WEB: [Counters()]}
    found = await Meter(api).measure(0.01)
    rows = table(Kind.DEPLOYMENT, found.book, 1.0).rows
    assert dict(rows[1].traffic.plaintext) == {reason: 4}
