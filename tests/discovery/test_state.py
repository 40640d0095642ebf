"""From the API server to changes: mirrors, rounds, readiness, health."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from discovery.resources import CLUSTER, LISTENER
from discovery.scope import EVERYTHING
from discovery.state import State
from discovery.tls import Mode
from tests.discovery.objects import CONFIG, endpoint_slice, namespace, pod, service
from tests.fakes.kubeapi import FakeApi

KINDS = {"Pod": "v1", "Service": "v1", "Namespace": "v1", "EndpointSlice": "discovery.k8s.io/v1"}


def wire(entry: Any) -> dict[str, Any]:
    kind = type(entry).__name__
    return {"apiVersion": KINDS[kind], "kind": kind, **msgspec.json.decode(msgspec.json.encode(entry))}


@asynccontextmanager
async def mirrored(*objects: Any) -> AsyncIterator[tuple[State, FakeApi]]:
    api = FakeApi()
    api.seed(*(wire(entry) for entry in objects))
    state = State(CONFIG)
    state.mirror(api)
    tasks = [asyncio.create_task(state.run_reflectors()), asyncio.create_task(state.run())]
    try:
        assert not state.synced
        async with asyncio.timeout(60):
            await state.until_synced()
        yield state, api
    finally:
        for task in tasks:
            task.cancel()


async def test_it_is_synced_once_everything_listed_is_worked_off_and_follows_what_changes() -> None:
    web = pod("web-0", "10.0.0.1", service_account="web")
    async with mirrored(namespace(), web, service("web", "10.96.0.1"), endpoint_slice("web", "10.0.0.1")) as (
        state,
        api,
    ):
        assert state.synced
        view = state.view(Mode.OPTIONAL, EVERYTHING)
        assert set(view.names(LISTENER)) == {"shop/web:80", "pod/10.0.0.1:8080"}
        seen: list[tuple[str, str]] = []
        state.publish = lambda changes, _pods: seen.extend((c.type_url, c.name) for c in changes)
        api.seed(wire(service("api", "10.96.0.2")), wire(endpoint_slice("api", "10.0.0.1")))
        async with asyncio.timeout(60):
            while (CLUSTER, "shop/api:80") not in seen:
                await state.worked()
        assert "shop/api:80" in set(view.names(LISTENER))
        assert not any(name == "shop/web:80" for _, name in seen), "what did not change was rebuilt"


async def test_proxies_of_one_mode_and_reach_share_a_view_that_goes_with_the_last_of_them() -> None:
    async with mirrored() as (state, _):
        one, two = (state.view(Mode.STRICT, EVERYTHING) for _ in range(2))
        assert one is two
        assert len(state.views()) == 1
        del one, two
        assert state.views() == []
