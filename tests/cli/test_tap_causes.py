"""A tap says which cause `tls_failed` had, where the proxies of both ends tell."""

from __future__ import annotations

import msgspec
import pytest

from cli.tap_causes import AGAIN_S, MOST, Causes
from discovery.entries import Entry, Place
from kube.errors import ApiError, ForbiddenError, ServerError
from tests.telemetry.proxies import MeshApi

FELL_BACK = Entry(
    time="t",
    direction="outbound",
    protocol="HTTP/1.1",
    reporter="shop/client-0",
    source=Place("10.0.0.1:1", "shop/pod/client-0", "shop/client-0"),
    destination=Place("10.96.0.10:80", "shop/pod/web-0", "shop/web-0", "shop/web:80"),
    reason="tls_failed",
)
RECEIVED = msgspec.structs.replace(
    FELL_BACK,
    direction="inbound",
    reporter="shop/web-0",
    destination=Place("10.0.0.2:8080", "shop/pod/web-0", "shop/web-0"),
)
FAILED = b'envoy_cluster_upstream_cx_connect_fail{envoy_cluster_name="%s"} 3\n'
HANDSHAKE = b'envoy_cluster_ssl_connection_error{envoy_cluster_name="shop/web_80"} 3\n'
TURNED_AWAY = b'envoy_listener_server_ssl_socket_factory_downstream_context_secrets_not_ready{x="y"} 2\n'
NO_LEAF = b'envoy_sds_update_success{envoy_xds_resource_name="leaf"} 0\n'
LEAF = b'envoy_sds_update_success{envoy_xds_resource_name="leaf"} 1\n'
LISTENERS = b"envoy_listener_manager_lds_update_success{} 2\n"
SERVICE, POD = b"shop/web_80", b"pod/10_0_0_2_8080"


def mesh(client: bytes | ApiError, server: bytes = b"") -> MeshApi:
    api = MeshApi()
    api.answers = {"client-0": [client], "web-0": [server]}
    return api


class Counting:
    """Remembers which proxies were asked."""

    def __init__(self, api: MeshApi) -> None:
        self.pods: list[str] = []
        api.after_each_scrape = self.pods.append


@pytest.mark.parametrize(
    ("client", "server", "reason"),
    [
        (FAILED % SERVICE, b"", "unreachable"),
        (FAILED % SERVICE + HANDSHAKE, b"", "handshake_failed"),
        (FAILED % SERVICE, TURNED_AWAY, "no_identity_server"),
        (b"", b"", "tls_failed"),
        (FAILED % b"shop/other_80", b"", "tls_failed"),
    ],
)
async def test_a_fallback_has_the_cause_that_both_ends_counted(client: bytes, server: bytes, reason: str) -> None:
    assert (await Causes(mesh(client, server)).explain(FELL_BACK)).reason == reason


async def test_a_pods_own_address_is_a_cluster_of_its_own() -> None:
    entry = msgspec.structs.replace(FELL_BACK, destination=Place("10.0.0.2:8080", "shop/pod/web-0", "shop/web-0"))
    assert (await Causes(mesh(FAILED % POD)).explain(entry)).reason == "unreachable"


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        (NO_LEAF, "no_identity_client"),
        (LEAF, "discovery_unavailable"),
        (LEAF + LISTENERS, "tls_failed"),
        (b"", "tls_failed"),
    ],
)
async def test_what_a_server_saw_of_a_meshed_client_has_the_clients_own_fault(client: bytes, reason: str) -> None:
    assert (await Causes(mesh(client)).explain(RECEIVED)).reason == reason


async def test_nobody_is_asked_for_what_is_known_and_each_proxy_once_in_a_while() -> None:
    api, now = mesh(FAILED % SERVICE), [0.0]
    asked = Counting(api)
    causes = Causes(api, clock=lambda: now[0])
    for reason in ("", "not_meshed", "external"):
        entry = msgspec.structs.replace(FELL_BACK, reason=reason)
        assert await causes.explain(entry) == entry
    assert asked.pods == []
    for _ in range(3):
        await causes.explain(FELL_BACK)
    assert asked.pods == ["client-0", "web-0"]
    now[0] = AGAIN_S
    await causes.explain(FELL_BACK)
    assert asked.pods == ["client-0", "web-0"] * 2


async def test_who_may_not_ask_is_told_what_the_proxy_said_and_asks_no_more() -> None:
    api = mesh(ForbiddenError(403, "Forbidden", "cannot get pods/proxy"))
    asked = Counting(api)
    causes = Causes(api)
    assert await causes.explain(FELL_BACK) == FELL_BACK
    assert await causes.explain(RECEIVED) == RECEIVED
    assert asked.pods == ["client-0"]


async def test_a_proxy_that_does_not_answer_and_a_name_that_is_none_change_nothing() -> None:
    api = mesh(ServerError(503, "ServiceUnavailable", "no proxy"))
    assert await Causes(api).explain(FELL_BACK) == FELL_BACK
    asked = Counting(api)
    strange = msgspec.structs.replace(RECEIVED, source=Place("10.0.0.1:1", "", "shop/../../x?y"))
    assert await Causes(api).explain(strange) == strange
    assert asked.pods == []


async def test_only_so_many_proxies_are_asked_at_a_time() -> None:
    api = mesh(b"")
    asked = Counting(api)
    causes = Causes(api, clock=lambda: 0.0)
    for number in range(2 * MOST):
        source = Place("10.0.0.1:1", "", f"shop/client-{number}")
        await causes.explain(msgspec.structs.replace(RECEIVED, source=source))
    assert len(asked.pods) == MOST
