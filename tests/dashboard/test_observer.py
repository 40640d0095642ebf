"""From proxies' answers to a snapshot: the real observer, a fake API server, fake proxies on the loopback."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import aiohttp
import pytest

from dashboard.model import Snapshot, Workload
from dashboard.observer import Observer
from mesh.config import MeshConfig
from tests.dashboard import fleet
from tests.fakes.kubeapi import FakeApi

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def looked(mesh: fleet.Fleet, time: Time, rounds: int = 3) -> Observer:
    """An observer that has looked at `mesh` so many times, five seconds apart."""
    api = FakeApi()
    api.seed(*mesh.manifests())
    observer = Observer(MeshConfig(), "autotls", date=lambda: NOW, clock=time, target=mesh.target)
    observer.mirror(api)
    async with mesh.answering(), aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        mirrors = group.create_task(observer.run_mirrors(), name="mirrors")
        await observer.synced()
        for _ in range(rounds):
            await observer.look(session)
            time.now += 5
        mirrors.cancel()
    return observer


@pytest.fixture
async def snapshot() -> Snapshot:
    time = Time()
    return (await looked(fleet.Fleet(fleet.shop(), time), time)).snapshot


def of(snapshot: Snapshot, key: str) -> Workload:
    return next(each for each in snapshot.workloads if each.key == key)


async def test_rates_and_shares_are_those_of_the_proxies(snapshot: Snapshot) -> None:
    assert snapshot.window_s == pytest.approx(10)
    cart = of(snapshot, "shop/deployment/cart").figures
    assert (cart.meshed, cart.pods, cart.tls) == (1, 1, 1.0)
    assert cart.rps == pytest.approx(20, abs=0.2)
    assert cart.success == pytest.approx(0.99, abs=0.01)
    assert cart.p50_us is not None and 1000 < cart.p50_us < 2500


async def test_plaintext_has_its_reason_and_its_share_of_everything_seen(snapshot: Snapshot) -> None:
    postgres = of(snapshot, "data/statefulset/postgres").figures
    assert postgres.tls == pytest.approx(0.75, abs=0.01)
    assert [reason for reason, _ in postgres.reasons] == ["unreachable"]
    assert (postgres.tls or 0) + sum(share for _, share in postgres.reasons) == pytest.approx(1)


async def test_what_no_proxy_counts_is_marked_and_noted(snapshot: Snapshot) -> None:
    assert of(snapshot, "shop/deployment/cart").figures.unseen
    assert any(note.startswith("* ") for note in snapshot.notes)


async def test_edges_name_both_workloads_and_identities(snapshot: Snapshot) -> None:
    found = {(edge.client, edge.server): edge for edge in snapshot.edges}
    tls = found["shop/deployment/web", "shop/deployment/cart"]
    assert tls.tls == 1.0
    assert tls.client_identity == "spiffe://cluster.local/ns/shop/sa/web"
    assert tls.server_identity == "spiffe://cluster.local/ns/shop/sa/cart"
    assert tls.rate == pytest.approx(20, abs=0.2)
    assert found["shop/deployment/payment", "legacy/deployment/billing"].reasons == (("not_meshed", 1.0),)
    assert found["shop/deployment/payment", "203.0.113.7:443"].reasons == (("external", 1.0),)


async def test_a_proxy_that_does_not_answer_is_noted_and_the_rest_is_counted() -> None:
    time = Time()
    mesh = fleet.Fleet(fleet.shop(), time)
    mesh.silent.add("data/redis-0")
    found = (await looked(mesh, time)).snapshot
    assert "1 of 9 proxies did not answer: data/redis-0 (answered 503)" in found.notes
    assert of(found, "shop/deployment/cart").figures.rps == pytest.approx(20, abs=0.2)
    assert of(found, "data/deployment/redis").figures.tls is None


async def test_the_first_look_shows_no_rate_at_all() -> None:
    time = Time()
    found = (await looked(fleet.Fleet(fleet.shop(), time), time, rounds=1)).snapshot
    assert all(each.figures.rps is None and each.figures.tls is None for each in found.workloads)
    assert all(each.rps_trend == () for each in found.workloads)


async def test_trends_have_a_value_for_every_look_after_the_first() -> None:
    time = Time()
    found = (await looked(fleet.Fleet(fleet.shop(), time), time, rounds=8)).snapshot
    cart = of(found, "shop/deployment/cart")
    assert len(cart.rps_trend) == len(cart.tls_trend) == 7
    assert cart.rps_trend[-1] == pytest.approx(20, abs=0.2)
    assert found.window_s == pytest.approx(30)


async def test_leaves_are_listed_by_identity_with_their_holders(snapshot: Snapshot) -> None:
    web = next(each for each in snapshot.certificates if each.subject.endswith("/sa/web"))
    assert (web.role, web.holders) == ("leaf", 2)
    assert web.not_after == datetime.fromtimestamp(2_000_000_000, UTC)
