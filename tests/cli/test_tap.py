"""The command's side of a tap: what is asked for, several replicas as one stream, and harmless lines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import click
import msgspec
import pytest

from cli import tapping as module
from cli.commands.tap import _account, where, whose
from cli.errors import CliError
from cli.tables.tap import as_json, as_line
from cli.tapping import Status, TapError, tapping
from discovery.entries import ADDRESS, NAMESPACE, POD, SERVICE, Entry, Line, Place, Selection, Target
from discovery.naming import entry_of
from discovery.tap_server import TapServer
from discovery.taps import Taps
from kube.errors import ForbiddenError
from tests.discovery.cluster import Mesh
from tests.discovery.objects import pod
from tests.discovery.records import RECORD
from tests.discovery.test_tap_server import Gate
from tests.fakes.kubeapi import FakeApi

SHOP = Selection(Target(NAMESPACE, "shop"))
TIMEOUT_S = 60


def plain(text: str, _colour: str) -> str:
    return text


ENTRY = Entry(
    time="2025-11-26T09:30:00.123456Z",
    direction="outbound",
    protocol="HTTP/1.1",
    reporter="shop/client-0",
    source=Place("10.0.0.1:1", "shop/deployment/client", "shop/client-0"),
    destination=Place("10.96.0.10:80", "shop/deployment/web", "shop/web-1", "shop/web:80"),
    latency_ms=1.234,
    received_bytes=1,
    sent_bytes=20,
    tls=True,
    tls_version="TLSv1.2",
    peer="spiffe://cluster.local/ns/shop/sa/web",
    method="GET",
    authority="web",
    path="/cart",
    status=200,
)


def test_a_request_is_one_line_that_says_who_what_how_and_with_whom() -> None:
    assert as_line(ENTRY, plain) == (
        "09:30:00.123 out shop/deployment/client -> shop/deployment/web (shop/web:80) HTTP/1.1 GET web/cart 200 1.2ms "
        "rx=1 tx=20 tls=true peer=spiffe://cluster.local/ns/shop/sa/web"
    )


def test_a_connection_in_plaintext_says_its_reason_and_what_is_unknown_is_an_address() -> None:
    entry = msgspec.structs.replace(
        ENTRY, protocol="TCP", tls=False, peer="", reason="external", destination=Place("192.0.2.1:443")
    )
    assert as_line(entry, plain) == (
        "09:30:00.123 out shop/deployment/client -> 192.0.2.1:443 TCP 1.2ms rx=1 tx=20 tls=external"
    )


def test_a_request_without_an_answer_says_why() -> None:
    entry = msgspec.structs.replace(ENTRY, status=0, flags=("UF", "URX"), tls=False, peer="")
    assert " GET web/cart - UF,URX 1.2ms rx=1 tx=20 tls=-" in as_line(entry, plain)


def test_a_call_of_grpc_says_its_own_status_too() -> None:
    entry = msgspec.structs.replace(ENTRY, grpc_status=14)
    assert " GET web/cart 200 grpc=14 1.2ms" in as_line(entry, plain)
    assert " GET web/cart 200 1.2ms" in as_line(ENTRY, plain)
    assert json.loads(as_json(entry))["grpc_status"] == 14


@pytest.mark.parametrize(
    "text", ["\x1b[2J\x1b]0;owned\x07", "<script>alert(1)</script>", "\r\n\x9b31m\u202e", "/" * 8192]
)
def test_hostile_text_is_harmless_in_a_line_and_in_json(text: str) -> None:
    hostile = dict.fromkeys(("authority", "path", "method", "protocol", "peer", "reason", "failure"), text)
    entry = msgspec.structs.replace(ENTRY, **hostile, destination=Place(text, text, text, text), flags=(text,))
    line = as_line(entry, plain)
    assert line.isprintable()
    assert len(line) < 2500
    told = as_json(entry)
    assert told.isascii()
    assert told.isprintable()
    assert json.loads(told)["path"] == text


@pytest.mark.parametrize(
    ("words", "target"),
    [
        ((), Target(NAMESPACE, "shop")),
        (("deploy/web",), Target("deployment", "shop", "web")),
        (("sts", "db"), Target("statefulset", "shop", "db")),
        (("po/web-1",), Target(POD, "shop", "web-1")),
        (("svc/web",), Target(SERVICE, "shop", "web")),
        (("ns/data",), Target(NAMESPACE, "data")),
    ],
)
def test_what_to_tap_is_written_as_for_kubectl(words: tuple[str, ...], target: Target) -> None:
    assert whose(words, "shop") == target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("deploy/web", Target("deployment", "shop", "web")),
        ("data/sts/db", Target("statefulset", "data", "db")),
        ("ns/data", Target(NAMESPACE, "data")),
        ("10.0.0.1", Target(ADDRESS, name="10.0.0.1")),
        ("fd00::1", Target(ADDRESS, name="fd00::1")),
    ],
)
def test_where_it_goes_may_be_in_another_namespace_or_an_address(text: str, target: Target) -> None:
    assert where(text, "shop") == target


@pytest.mark.parametrize("text", ["web", "a/b/c/d", "deploy/", "nonsense/web"])
def test_what_names_nothing_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(CliError):
        where(text, "shop")


def test_all_namespaces_have_no_workload_of_a_name() -> None:
    assert whose((), "") == Target(NAMESPACE)
    with pytest.raises(CliError):
        whose(("deploy/web",), "")
    for words in (("au/web",), ("deploy",), ("deploy", "a", "b")):
        with pytest.raises((click.UsageError, CliError)):
            whose(words, "shop")
    for account in ("tapper", "ns/", "a/b/c"):
        with pytest.raises(click.BadParameter):
            _account(account)


class Replicas:
    """Doors of discovery behind port-forwards of a fake cluster."""

    def __init__(self) -> None:
        self.api = FakeApi()
        self.mesh, self.gate = Mesh(), Gate()
        self.mesh.put(pod("client-0", "10.0.0.1"))
        self.taps: dict[str, Taps] = {}
        self.doors: dict[str, tuple[TapServer, asyncio.Server]] = {}
        self.forbidden = False

    async def start(self, name: str, proxies: int = 1) -> None:
        taps = self.taps[name] = Taps(self.mesh.world, asyncio.get_running_loop().time)
        door = TapServer(taps, self.gate, lambda _session: proxies)
        self.doors[name] = (door, await door.serve(0))
        labels = {"app.kubernetes.io/name": "autotls", "app.kubernetes.io/component": "discovery"}
        self.api.seed(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": "autotls", "labels": labels},
                "status": {"phase": "Running"},
            }
        )

    async def stop(self, name: str) -> None:
        door, listening = self.doors.pop(name)
        listening.close()
        await door.close()
        await self.api.request("DELETE", f"/api/v1/namespaces/autotls/pods/{name}")

    @asynccontextmanager
    async def forwarded(self, _api: Any, *, namespace: str, pod: str, port: int, complain: Any) -> AsyncIterator[int]:
        assert (namespace, port) == ("autotls", 15111)
        if self.forbidden:
            complain(ForbiddenError(403, "Forbidden", "pods/portforward"))
            raise asyncio.IncompleteReadError(b"", None)
        yield self.doors[pod][1].sockets[0].getsockname()[1]

    async def until_nobody_taps(self, name: str) -> None:
        changed = asyncio.Event()
        self.taps[name].changed = changed.set
        async with asyncio.timeout(TIMEOUT_S):
            while len(self.taps[name]):
                await changed.wait()
                changed.clear()

    def tell(self, name: str, times: int = 1) -> None:
        facts = self.mesh.world.pod("shop/client-0")
        assert facts is not None
        self.taps[name].take(facts, [RECORD] * times)


@pytest.fixture
async def replicas(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Replicas]:
    made = Replicas()
    monkeypatch.setattr(module, "forwarded", made.forwarded)
    monkeypatch.setattr(module, "LOOK_S", 0.02)
    yield made
    for name in list(made.doors):
        await made.stop(name)


async def good() -> str:
    return "good"


async def until(told: AsyncIterator[Entry | Status], wanted: Any) -> Any:
    """The first one that `wanted` is true of."""
    async with asyncio.timeout(TIMEOUT_S):
        async for each in told:
            if wanted(each):
                return each
    raise AssertionError("it ended")


def status(replicas: int, proxies: int) -> Any:
    return lambda each: isinstance(each, Status) and (each.replicas, each.proxies) == (replicas, proxies)


async def test_all_replicas_are_one_tap_and_one_that_comes_or_goes_makes_no_difference(replicas: Replicas) -> None:
    await replicas.start("one", proxies=2)
    await replicas.start("two", proxies=3)
    async with tapping(replicas.api, "autotls", SHOP, good) as told:
        await until(told, status(2, 5))
        for name in ("one", "two"):
            replicas.tell(name)
            entry = await until(told, lambda each: isinstance(each, Entry))
            facts = replicas.mesh.world.pod("shop/client-0")
            assert facts is not None
            assert entry == entry_of(RECORD, facts, replicas.mesh.world)
        await replicas.stop("one")
        await until(told, status(1, 3))
        await replicas.start("three")
        await until(told, status(2, 4))
        assert [len(replicas.taps[name]) for name in ("one", "two", "three")] == [0, 1, 1]
    for name in ("two", "three"):
        await replicas.until_nobody_taps(name)


async def test_the_limit_holds_for_all_replicas_together_and_says_what_it_skipped(replicas: Replicas) -> None:
    for name in ("one", "two"):
        await replicas.start(name)
    limited = Selection(Target(NAMESPACE, "shop"), max_rps=10)
    async with tapping(replicas.api, "autotls", limited, good, clock=lambda: 0.0) as told:
        await until(told, status(2, 2))
        for name in ("one", "two"):
            replicas.tell(name, times=10)
        found = [await until(told, lambda each: isinstance(each, Entry)) for _ in range(10)]
        # The status tells the count so far whenever it is looked at.
        seen: list[int] = []
        await until(told, lambda each: isinstance(each, Status) and (seen.append(each.skipped) or each.skipped >= 10))
        await replicas.stop("two")
        await until(told, lambda each: isinstance(each, Status) and each.replicas == 1 and each.skipped == 10)
    assert (len(found), seen[-1]) == (10, 10)


async def test_a_refusal_is_told_with_what_to_do(replicas: Replicas) -> None:
    await replicas.start("one")
    replicas.gate.allowed.clear()
    async with tapping(replicas.api, "autotls", SHOP, good) as told:
        with pytest.raises(TapError, match="ann may not") as refusal:
            await until(told, lambda _each: False)
    assert refusal.value.hint == "ask for it"


async def test_without_the_right_to_forward_ports_or_without_a_control_plane_it_says_so(replicas: Replicas) -> None:
    async with tapping(replicas.api, "autotls", SHOP, good) as told:
        with pytest.raises(TapError, match="no replica of discovery"):
            await until(told, lambda _each: False)
    await replicas.start("one")
    replicas.forbidden = True
    async with tapping(replicas.api, "autotls", SHOP, good) as told:
        with pytest.raises(ForbiddenError, match="portforward"):
            await until(told, lambda _each: False)


async def test_a_tap_that_nobody_reads_keeps_the_newest_and_counts_the_rest(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 10)
    tap = module._Tap(replicas.api, "autotls", SHOP, good, lambda: 0.0)
    tap._replicas["one"] = module._Replica(asyncio.create_task(asyncio.sleep(0)))
    for number in range(15):
        tap._take("one", msgspec.json.encode(Line(msgspec.structs.replace(ENTRY, path=f"/{number}"))))
    tap._take("one", msgspec.json.encode(Line(proxies=1)))
    told = tap.told()
    entries = [await anext(told) for _ in range(9)]
    assert [entry.path for entry in entries] == [f"/{number}" for number in range(6, 15)]
    assert await anext(told) == Status(1, 1, lost=5)
    assert tap._lost == 6  # the status itself took a place


def test_lines_of_a_newer_control_plane_are_understood() -> None:
    assert msgspec.json.decode(b'{"proxies":1,"novel":true}', type=Line) == Line(proxies=1)
