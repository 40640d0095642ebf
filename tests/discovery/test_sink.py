"""The access-log sink: who may speak, for whom it is taken, and what happens to a flood."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.accesslog import Record, count, parse
from discovery.ads import Server
from discovery.api import als_pb2
from discovery.errors import RequestError
from discovery.metrics import SINK_ENTRIES
from discovery.sink import ENTRIES_PER_S, METHOD
from discovery.snapshot import PodFacts
from discovery.state import State
from tests.discovery.cluster import put
from tests.discovery.objects import CONFIG, pod
from tests.discovery.serving import AUTHORITY, channel, client_leaf, serving
from tests.proxy.certificates import Leaf

TIMEOUT_S = 60


class Notebook:
    """A consumer that writes down what it is given."""

    def __init__(self, *, curious: bool = True) -> None:
        self.curious = curious
        self.taken: list[tuple[str, Record]] = []
        self.lost_entries = 0
        self.news = asyncio.Event()

    def wants(self, pod: PodFacts) -> bool:
        self.news.set()
        return self.curious

    def take(self, pod: PodFacts, records: Sequence[Record]) -> None:
        self.taken.extend((pod.key, record) for record in records)
        self.news.set()

    def lost(self, pod: PodFacts, entries: int) -> None:
        self.lost_entries += entries
        self.news.set()

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while not condition():
                await self.news.wait()
                self.news.clear()


def message(*paths: str, node: str = "somebody.else") -> Any:
    told = als_pb2.StreamAccessLogsMessage()
    told.identifier.node.id = node
    for path in paths:
        entry = told.http_logs.log_entry.add()
        entry.request.path = "/what-the-client-said"
        entry.request.user_agent = "secret agent"
        entry.common_properties.custom_tags.update({"path": path, "dir": "inbound", "tls": "TLSv1.2", "peer": "-"})
        entry.common_properties.downstream_remote_address.socket_address.address = "::ffff:10.0.0.7"
        entry.common_properties.downstream_remote_address.socket_address.port_value = 4242
    return told


@pytest.fixture
def state() -> State:
    state = State(CONFIG)
    put(state.world, pod("client", "127.0.0.1", service_account="client"))
    return state


@asynccontextmanager
async def log_stream(server: Server, leaf: Leaf | None) -> AsyncIterator[Any]:
    async with channel(server, leaf) as opened:
        call = opened.stream_unary(METHOD, request_serializer=als_pb2.StreamAccessLogsMessage.SerializeToString)()
        yield call
        call.cancel()


async def status_of(call: Any) -> grpc.StatusCode:
    async with asyncio.timeout(TIMEOUT_S):
        return await call.code()


async def test_entries_are_taken_as_those_of_the_pod_that_calls_whatever_they_claim(
    state: State, tmp_path: Path
) -> None:
    notebook = Notebook()
    async with serving(state, tmp_path, [notebook]) as server, log_stream(server, client_leaf()) as call:
        await call.write(message("/a", node="web-0.shop"))
        await call.write(message("/b"))
        await notebook.until(lambda: len(notebook.taken) == 2)
    assert [(key, record.path) for key, record in notebook.taken] == [("shop/client", "/a"), ("shop/client", "/b")]


@pytest.mark.parametrize(
    ("case", "leaf", "code"),
    [
        ("another ServiceAccount's certificate", client_leaf("web"), grpc.StatusCode.PERMISSION_DENIED),
        (
            "another trust domain's",
            AUTHORITY.leaf("spiffe://other.example/ns/shop/sa/client"),
            grpc.StatusCode.PERMISSION_DENIED,
        ),
        ("no certificate", None, grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_whoever_is_not_the_pod_at_its_address_tells_nothing(
    state: State, tmp_path: Path, case: str, leaf: Leaf | None, code: grpc.StatusCode
) -> None:
    notebook = Notebook()
    async with serving(state, tmp_path, [notebook]) as server, log_stream(server, leaf) as call:
        # Nothing is written: a write that meets the refusal would turn it into an error of the stream.
        assert await status_of(call) is code, case
    assert not notebook.taken


async def test_a_pod_that_became_another_one_is_not_listened_to_any_longer(state: State, tmp_path: Path) -> None:
    notebook = Notebook()
    async with serving(state, tmp_path, [notebook]) as server, log_stream(server, client_leaf()) as call:
        await call.write(message("/before"))
        await notebook.until(lambda: notebook.taken)
        put(state.world, pod("client", "127.0.0.1", service_account="other"))
        state.note()
        await state.worked()
        await call.write(message("/after"))
        assert await status_of(call) is grpc.StatusCode.OK
    assert [record.path for _, record in notebook.taken] == ["/before"]


async def test_bytes_that_are_no_entries_are_refused(state: State, tmp_path: Path) -> None:
    async with serving(state, tmp_path, [Notebook()]) as server, channel(server, client_leaf()) as opened:
        call = opened.stream_unary(METHOD)()
        await call.write(b"\xff\xff\xff")
        assert await status_of(call) is grpc.StatusCode.INVALID_ARGUMENT


async def test_each_consumer_is_given_the_entries_of_the_pods_that_it_wants(state: State, tmp_path: Path) -> None:
    first, bored, second = Notebook(), Notebook(curious=False), Notebook()
    async with serving(state, tmp_path, [first, bored, second]) as server, log_stream(server, client_leaf()) as call:
        await call.write(message("/a"))
        await second.until(lambda: second.taken)
    assert [record.path for _, record in first.taken] == [record.path for _, record in second.taken] == ["/a"]
    assert not bored.taken


async def test_entries_that_nobody_wants_are_not_even_read(state: State, tmp_path: Path) -> None:
    notebook = Notebook(curious=False)
    unwanted = SINK_ENTRIES.labels("unwanted")._value
    before = unwanted.get()
    async with serving(state, tmp_path, [notebook]) as server, log_stream(server, client_leaf()) as call:
        await call.write(message("/a", "/b"))
        await notebook.until(lambda: unwanted.get() == before + 2)
    assert not notebook.taken


async def test_what_comes_faster_than_it_may_be_read_is_counted_and_not_read(state: State, tmp_path: Path) -> None:
    notebook = Notebook()
    batch = message(*["/x"] * 1000)
    # In no time at all: the budget of one second is never filled up again.
    async with (
        serving(state, tmp_path, [notebook], clock=lambda: 0.0) as server,
        log_stream(server, client_leaf()) as call,
    ):
        for _ in range(10):
            await call.write(batch)
        await notebook.until(lambda: len(notebook.taken) + notebook.lost_entries == 10_000)
    assert (len(notebook.taken), notebook.lost_entries) == (ENTRIES_PER_S, 10_000 - ENTRIES_PER_S)


def test_what_is_read_of_an_entry_holds_no_header_and_no_query() -> None:
    (record,) = parse(message("/pay?card=4111").SerializeToString())
    assert (record.path, record.source, record.tls, record.peer) == ("/pay?…", "10.0.0.7:4242", "TLSv1.2", "")
    assert not record.outbound
    assert "secret" not in repr(record)
    assert "what-the-client-said" not in repr(record)


@given(st.lists(st.text(max_size=2000), max_size=20))
def test_entries_are_counted_without_being_read(paths: list[str]) -> None:
    data = message(*paths).SerializeToString()
    assert count(data) == len(parse(data)) == len(paths)


@given(st.binary(max_size=200))
def test_any_bytes_are_counted_or_refused_but_never_a_fault(data: bytes) -> None:
    assert count(data) >= 0
    try:
        parse(data)
    except RequestError as error:
        assert "StreamAccessLogsMessage" in error.message
