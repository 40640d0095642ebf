"""The door of taps: who gets in, what is told, and that nothing stays open when the command is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from discovery import tap_server
from discovery.entries import NAMESPACE, Line, Selection, Target
from discovery.errors import TapRefusedError
from discovery.tap_access import Access
from discovery.tap_server import TapServer
from discovery.taps import MAX_SESSIONS, Taps
from kube.errors import UnreachableError
from kube.reviews import User
from tests.discovery.cluster import Mesh
from tests.discovery.objects import pod
from tests.discovery.records import RECORD

SHOP = Selection(Target(NAMESPACE, "shop"))
TIMEOUT_S = 60


@dataclass
class Gate:
    """Knows one token, and lets its user into some namespaces."""

    allowed: set[str] = field(default_factory=lambda: {"shop"})

    async def user_of(self, token: str) -> User:
        if token != "good":
            raise TapRefusedError(401, "nobody", hint="log in")
        return User("ann")

    async def check(self, user: User, namespace: str) -> None:
        if namespace not in self.allowed:
            raise TapRefusedError(403, f"{user.username} may not", hint="ask for it")


@dataclass
class Door:
    server: TapServer
    taps: Taps
    mesh: Mesh
    gate: Gate
    port: int

    async def until_nobody_taps(self) -> None:
        changed = asyncio.Event()
        self.taps.changed = changed.set
        async with asyncio.timeout(TIMEOUT_S):
            while len(self.taps):
                await changed.wait()
                changed.clear()


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    mesh, gate = Mesh(), Gate()
    mesh.put(pod("client-0", "10.0.0.1"))
    taps = Taps(mesh.world, asyncio.get_running_loop().time)
    server = TapServer(taps, gate, lambda _session: 7)
    listening = await server.serve(0)
    yield Door(server, taps, mesh, gate, listening.sockets[0].getsockname()[1])
    listening.close()
    await server.close()
    assert len(taps) == 0


class Command:
    """What the command does, by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def head(self) -> str:
        async with asyncio.timeout(TIMEOUT_S):
            return (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[0]

    async def line(self) -> Line | None:
        """None at the end."""
        async with asyncio.timeout(TIMEOUT_S):
            text = await self.reader.readline()
        return msgspec.json.decode(text, type=Line) if text else None

    async def other_than(self, usual: Line) -> Line | None:
        """The next line that is not `usual`, which comes every few seconds."""
        while (line := await self.line()) == usual:
            pass
        return line


@asynccontextmanager
async def command(
    door: Door, body: bytes | None = None, *, token: str = "good", path: str = "/tap", **headers: str
) -> AsyncIterator[Command]:
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    content = msgspec.json.encode(SHOP) if body is None else body
    fields = {"upgrade": "autotls-tap", "content-length": str(len(content)), "authorization": f"Bearer {token}"}
    fields |= {name.replace("_", "-"): text for name, text in headers.items()}
    head = "".join(f"{name}: {text}\r\n" for name, text in fields.items())
    writer.write(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + content)
    try:
        yield Command(reader, writer)
    finally:
        writer.close()


async def test_what_a_tapped_pod_tells_comes_as_lines_after_how_many_proxies_there_are(door: Door) -> None:
    async with command(door) as tapping:
        assert await tapping.head() == "HTTP/1.1 101 Switching Protocols"
        assert await tapping.line() == Line(proxies=7)
        facts = door.mesh.world.pod("shop/client-0")
        assert facts is not None
        door.taps.take(facts, [RECORD])
        line = await tapping.other_than(Line(proxies=7))
        assert line is not None
        assert line.entry is not None
        assert line.entry.path == "/cart/1"


async def test_a_command_that_is_gone_taps_no_longer(door: Door) -> None:
    async with command(door) as tapping:
        await tapping.head()
        assert len(door.taps) == 1
        tapping.writer.transport.abort()
        await door.until_nobody_taps()


async def test_a_command_that_falls_silent_taps_no_longer(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap_server, "SILENCE_S", 0.05)
    async with command(door) as tapping:
        await tapping.head()
        await door.until_nobody_taps()


async def test_rights_that_are_taken_away_end_the_tap_with_a_reason(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tap_server, "RECHECK_S", 0.0)
    monkeypatch.setattr(tap_server, "ALIVE_S", 0.01)
    async with command(door) as tapping:
        await tapping.head()
        assert await tapping.line() == Line(proxies=7)
        door.gate.allowed.clear()
        assert await tapping.other_than(Line(proxies=7)) == Line(error="ann may not", hint="ask for it")
        assert await tapping.line() is None


@pytest.mark.parametrize(
    ("case", "arguments", "status"),
    [
        ("a token of nobody", {"token": "bad"}, "401 Unauthorized"),
        ("no token", {"authorization": ""}, "401 Unauthorized"),
        ("another kind of credential", {"authorization": "Basic good"}, "401 Unauthorized"),
        (
            "a namespace that is not allowed",
            {"body": msgspec.json.encode(Selection(Target(NAMESPACE)))},
            "403 Forbidden",
        ),
        ("no selection", {"body": b"{}"}, "400 Bad Request"),
        ("no JSON", {"body": b"\xff"}, "400 Bad Request"),
        ("a selection of an address", {"body": b'{"of":{"kind":"address","name":"10.0.0.1"}}'}, "400 Bad Request"),
        ("an endless body", {"content_length": "99999999"}, "400 Bad Request"),
        ("a body of no length", {"content_length": "x"}, "400 Bad Request"),
        ("no upgrade", {"upgrade": "h2c"}, "400 Bad Request"),
        ("another path", {"path": "/metrics"}, "404 Not Found"),
    ],
)
async def test_what_is_no_tap_of_somebody_allowed_is_refused(
    door: Door, case: str, arguments: dict[str, Any], status: str
) -> None:
    async with command(door, **arguments) as tapping:
        assert await tapping.head() == f"HTTP/1.1 {status}", case
        line = await tapping.line()
        assert line is not None
        assert line.error
    assert len(door.taps) == 0


async def test_one_tap_too_many_is_refused(door: Door) -> None:
    for _ in range(MAX_SESSIONS):
        door.taps.open(SHOP, lambda: None)
    async with command(door) as tapping:
        assert await tapping.head() == "HTTP/1.1 429 Too Many Requests"
    for session in list(door.taps._sessions.values()):
        door.taps.close(session)


class Reviews:
    """An API server that knows tokens by audience, and one user's rights."""

    def __init__(self, tokens: dict[tuple[str, str], str], namespaces: set[str]) -> None:
        self.tokens, self.namespaces = tokens, namespaces
        self.down = False

    async def request(self, method: str, path: str, *, body: bytes = b"", **_: Any) -> bytes:
        if self.down:
            raise UnreachableError("Timeout", "no answer")
        spec = msgspec.json.decode(body)["spec"]
        if path.endswith("/tokenreviews"):
            name = self.tokens.get((spec["token"], (spec.get("audiences") or [""])[0]))
            user = {"username": name, "uid": "7", "groups": ["devs"], "extra": {"scopes": ["a"]}} if name else {}
            return msgspec.json.encode({"status": {"authenticated": bool(name), "user": user}})
        assert path == "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        assert (spec["user"], spec["groups"], spec["extra"]) == ("ann", ["devs"], {"scopes": ["a"]})
        wanted = spec["resourceAttributes"]
        assert (wanted["verb"], wanted["resource"], wanted["group"]) == ("tap", "pods", "")
        return msgspec.json.encode({"status": {"allowed": wanted["namespace"] in self.namespaces}})

    def lines(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("nothing is watched")


async def test_a_token_for_taps_and_one_for_the_api_server_are_both_known() -> None:
    access = Access(Reviews({("ours", "autotls-tap"): "ann", ("theirs", ""): "ann"}, set()))
    assert [(await access.user_of(token)).username for token in ("ours", "theirs")] == ["ann", "ann"]
    for token in ("other", ""):
        with pytest.raises(TapRefusedError) as refusal:
            await access.user_of(token)
        assert refusal.value.status == 401


async def test_who_lacks_the_verb_is_told_its_name_and_the_rule_to_add() -> None:
    access = Access(Reviews({("ours", "autotls-tap"): "ann"}, {"shop"}))
    user = await access.user_of("ours")
    await access.check(user, "shop")
    for namespace, where in (("data", "in namespace data"), ("", "in all namespaces")):
        with pytest.raises(TapRefusedError) as refusal:
            await access.check(user, namespace)
        assert (refusal.value.status, f"the verb 'tap' on pods {where}" in refusal.value.message) == (403, True)
        assert "--clusterrole=autotls-tap --user=ann" in refusal.value.hint


async def test_an_api_server_that_does_not_answer_lets_nobody_in() -> None:
    reviews = Reviews({("ours", "autotls-tap"): "ann"}, {"shop"})
    access = Access(reviews)
    user = await access.user_of("ours")
    reviews.down = True
    for attempt in (access.user_of("ours"), access.check(user, "shop")):
        with pytest.raises(TapRefusedError) as refusal:
            await attempt
        assert refusal.value.status == 503
