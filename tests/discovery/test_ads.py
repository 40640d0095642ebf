"""The ADS server with real gRPC clients and real certificates. Every client calls from the loopback's addresses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from discovery.ads import METHOD, Server
from discovery.api import discovery_pb2
from discovery.credentials import ServerCredentials
from discovery.errors import CredentialsError
from discovery.metrics import REFUSED
from discovery.own import DIAL_V4, RUNTIME_LAYER
from discovery.resources import CLUSTER, ENDPOINTS, EXTENSION, LISTENER, RUNTIME
from discovery.state import State
from tests.discovery.certificates import ControlPlaneAuthority, now_utc
from tests.discovery.cluster import put
from tests.discovery.objects import CONFIG, endpoint_slice, identity, pod, service
from tests.discovery.serving import AUTHORITY, channel, client_leaf, serving
from tests.proxy.certificates import Leaf, swap_identity

NODE = "client.shop"
TIMEOUT_S = 60


@pytest.fixture
def state() -> State:
    state = State(CONFIG)
    put(
        state.world,
        pod("client", "127.0.0.1", service_account="client", ports=(9000,)),
        pod("web-0", "10.0.0.10", service_account="web"),
        service("web", "10.96.0.10"),
        endpoint_slice("web", "10.0.0.10"),
    )
    return state


class Proxy:
    """A client of the delta protocol that keeps what it was told, and acknowledges all of it."""

    def __init__(self, call: Any, node: str = NODE) -> None:
        self.call, self.node = call, node
        self.held: dict[str, dict[str, str]] = {}
        self.answers: list[Any] = []

    async def ask(self, type_url: str, *names: str, versions: dict[str, str] | None = None) -> None:
        request = discovery_pb2.DeltaDiscoveryRequest(
            type_url=type_url, resource_names_subscribe=names, initial_resource_versions=versions or {}
        )
        request.node.id = self.node
        self.held.setdefault(type_url, dict(versions or {}))
        await self.call.write(request)

    async def answer(self) -> Any:
        async with asyncio.timeout(TIMEOUT_S):
            found = await self.call.read()
        if found is grpc.aio.EOF:
            raise await self._ended()
        held = self.held[found.type_url]
        held.update({entry.name: entry.version for entry in found.resources})
        for name in found.removed_resources:
            held.pop(name, None)
        self.answers.append(found)
        acknowledged = discovery_pb2.DeltaDiscoveryRequest(type_url=found.type_url, response_nonce=found.nonce)
        try:
            await self.call.write(acknowledged)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The server may have ended the stream right behind its answer.
            raise await self._ended() from None
        return found

    async def _ended(self) -> AssertionError:
        return AssertionError(f"stream ended: {await self.call.code()} {await self.call.details()}")


@asynccontextmanager
async def proxy(
    server: Server, leaf: Leaf | None, *, address: str = "127.0.0.1", node: str = NODE
) -> AsyncIterator[Proxy]:
    async with channel(server, leaf, address=address) as opened:
        call = opened.stream_stream(
            METHOD,
            request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
        )()
        yield Proxy(call, node)
        call.cancel()


async def refused(proxy_: Proxy, *, unasked: bool = False) -> grpc.StatusCode:
    """The status of a stream that must end without an answer; `unasked`: before the proxy has said anything.

    grpc.aio 1.85.3: a write that meets a stream which has just ended makes its status INTERNAL, whatever the server
    said (`set_internal_error` in `aio/_call.py`). So nothing is written to a server that does not wait for it.
    """
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        if not unasked:
            await proxy_.ask(CLUSTER)
        async with asyncio.timeout(TIMEOUT_S):
            assert await proxy_.call.read() is grpc.aio.EOF
        raise grpc.aio.AioRpcError(await proxy_.call.code(), grpc.aio.Metadata(), grpc.aio.Metadata())
    return ended.value.code()


async def test_a_proxy_gets_everything_meshed_and_its_own_ports(state: State, tmp_path: Path) -> None:
    async with serving(state, tmp_path) as server, proxy(server, client_leaf()) as client:
        await client.ask(CLUSTER)
        clusters = await client.answer()
        names = {entry.name for entry in clusters.resources}
        assert names == {"shop/web:80", "pod/10.0.0.10:8080", "pod/127.0.0.1:9000"}
        await client.ask(ENDPOINTS, *names)
        assert {entry.name for entry in (await client.answer()).resources} == names
        await client.ask(LISTENER)
        assert {entry.name for entry in (await client.answer()).resources} == names
        await client.ask(EXTENSION, DIAL_V4)
        assert [entry.name for entry in (await client.answer()).resources] == [DIAL_V4]
        assert b"'9000'" in client.answers[-1].resources[0].resource.value
        await client.ask(RUNTIME, RUNTIME_LAYER)
        assert [entry.name for entry in (await client.answer()).resources] == [RUNTIME_LAYER]


async def test_one_changed_endpoint_is_one_pushed_resource(state: State, tmp_path: Path) -> None:
    async with serving(state, tmp_path) as server, proxy(server, client_leaf()) as client:
        await client.ask(CLUSTER)
        await client.answer()
        await client.ask(ENDPOINTS, "shop/web:80")
        await client.answer()
        put(state.world, endpoint_slice("web", "10.0.0.10", "10.0.0.77"))
        state.note()
        pushed = await client.answer()
        assert pushed.type_url == ENDPOINTS
        assert [entry.name for entry in pushed.resources] == ["shop/web:80"]
        assert b"10.0.0.77" in pushed.resources[0].resource.value


async def test_a_proxy_that_comes_back_is_sent_nothing_it_has(state: State, tmp_path: Path) -> None:
    async with serving(state, tmp_path) as server:
        async with proxy(server, client_leaf()) as client:
            await client.ask(LISTENER)
            await client.answer()
            held = client.held[LISTENER]
        async with proxy(server, client_leaf()) as client:
            await client.ask(LISTENER, versions=held)
            assert not (await client.answer()).resources
        stale = {**held, "gone:1": "000000000000"}
        async with proxy(server, client_leaf()) as client:
            await client.ask(LISTENER, versions=stale)
            again = await client.answer()
            assert (list(again.resources), list(again.removed_resources)) == ([], ["gone:1"])


@pytest.mark.parametrize(
    ("case", "leaf", "node", "reason"),
    [
        (
            "an identity of another trust domain",
            AUTHORITY.leaf("spiffe://other.example/ns/shop/sa/client"),
            NODE,
            "foreign_identity",
        ),
        ("another ServiceAccount's certificate", AUTHORITY.leaf(identity("web")), NODE, "other_identity"),
        ("another pod's configuration", AUTHORITY.leaf(identity("client")), "web-0.shop", "other_pod"),
        ("a certificate that names no SPIFFE ID", AUTHORITY.leaf("https://cluster.local/x"), NODE, "no_certificate"),
    ],
)  # fmt: skip
async def test_whoever_is_not_the_pod_at_its_address_is_refused_and_counted(  # noqa: PLR0917 - a table's columns
    state: State, tmp_path: Path, case: str, leaf: Leaf, node: str, reason: str
) -> None:
    before = REFUSED.labels(reason)._value.get()
    by_certificate = reason in ("foreign_identity", "no_certificate")
    async with serving(state, tmp_path) as server, proxy(server, leaf, node=node) as client:
        assert await refused(client, unasked=by_certificate) is grpc.StatusCode.PERMISSION_DENIED, case
    assert REFUSED.labels(reason)._value.get() == before + 1


@pytest.mark.parametrize(
    ("case", "leaf"),
    [("no certificate", None), ("another root's", ControlPlaneAuthority("stranger").leaf(identity("client")))],
)
async def test_without_a_certificate_of_the_mesh_there_is_no_connection(
    state: State, tmp_path: Path, case: str, leaf: Leaf | None
) -> None:
    async with serving(state, tmp_path) as server, proxy(server, leaf) as client:
        assert await refused(client, unasked=True) is grpc.StatusCode.UNAVAILABLE, case


async def test_an_address_that_is_reported_late_is_waited_for(state: State, tmp_path: Path) -> None:
    async with (
        serving(state, tmp_path) as server,
        proxy(server, client_leaf(), address="[::1]", node="late.shop") as client,
    ):
        await client.ask(LISTENER)
        await asyncio.sleep(0)
        put(state.world, pod("late", "::1", service_account="client"))
        state.note()
        assert (await client.answer()).resources


async def test_a_pod_without_an_address_yet_is_served_by_its_identity_and_checked_once_it_has_one(
    state: State, tmp_path: Path
) -> None:
    put(state.world, pod("late", service_account="client"))
    async with (
        serving(state, tmp_path) as server,
        proxy(server, client_leaf(), address="[::1]", node="late.shop") as client,
    ):
        await client.ask(LISTENER)
        assert (await client.answer()).resources
        put(state.world, pod("late", "10.0.0.99", service_account="client"))
        state.note()
        with pytest.raises(AssertionError, match="stream ended"):
            while True:
                await client.answer()


async def test_a_deleted_service_leaves_its_listener_at_once_and_its_cluster_later(
    state: State, tmp_path: Path
) -> None:
    clock = [0.0]
    state._clock = lambda: clock[0]
    async with serving(state, tmp_path) as server, proxy(server, client_leaf()) as client:
        server._clock = lambda: clock[0]
        await client.ask(CLUSTER)
        await client.answer()
        await client.ask(ENDPOINTS, *client.held[CLUSTER])
        await client.answer()
        await client.ask(LISTENER)
        await client.answer()
        state.world.set_service("shop/web", None)
        state.note()
        gone = await client.answer()
        assert (gone.type_url, list(gone.removed_resources)) == (LISTENER, ["shop/web:80"])
        clock[0] += 11
        for type_url in (CLUSTER, ENDPOINTS):
            later = await client.answer()
            assert (later.type_url, list(later.removed_resources)) == (type_url, ["shop/web:80"])


async def test_a_new_serving_certificate_is_used_for_new_connections_and_open_streams_go_on(
    state: State, tmp_path: Path
) -> None:
    async with serving(state, tmp_path) as server, proxy(server, client_leaf()) as client:
        await client.ask(LISTENER)
        await client.answer()
        other = ControlPlaneAuthority("next")
        replacement = other.server()
        swap_identity(tmp_path, {**replacement.files(), "ca.crt": AUTHORITY.pem + other.pem})
        loaded = server.credentials.load()
        assert loaded
        # Trusts the first root only, and so learns that the new certificate is served; it writes nothing (see refused).
        async with proxy(server, client_leaf()) as stranger, asyncio.timeout(TIMEOUT_S):
            with suppress(grpc.aio.AioRpcError):
                assert await stranger.call.read() is grpc.aio.EOF
            assert "CERTIFICATE_VERIFY_FAILED" in await stranger.call.details()
        put(state.world, service("api", "10.96.0.11"), endpoint_slice("api", "10.0.0.10"))
        state.note()
        assert [entry.name for entry in (await client.answer()).resources] == ["shop/api:80"]


def test_a_key_that_does_not_fit_is_refused_and_never_shown(tmp_path: Path) -> None:
    good, other = AUTHORITY.server(), AUTHORITY.server()
    swap_identity(tmp_path, {**good.files(), "tls.key": other.key})
    credentials = ServerCredentials(tmp_path)
    with pytest.raises(CredentialsError) as caught:
        credentials.load()
    assert "BEGIN" not in str(caught.value)
    assert "BEGIN" not in repr(credentials)
    assert not credentials.loaded


async def test_a_stream_ends_when_the_certificate_that_opened_it_expires(state: State, tmp_path: Path) -> None:
    async with serving(state, tmp_path) as server, proxy(server, client_leaf()) as client:
        await client.ask(LISTENER)
        await client.answer()
        server._date = lambda: now_utc() + timedelta(days=2)
        with pytest.raises(AssertionError, match="stream ended"):
            await client.answer()
