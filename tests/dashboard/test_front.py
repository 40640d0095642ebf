"""Who gets an answer of `autotls dashboard`, and what it relays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from cli.front import Event, Front
from dashboard.app import FRONTED_HEADER
from dashboard.model import Checked
from kube.errors import ForbiddenError

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
KEY = "k" * 32


class Pod:
    """A pod's page server, and the forwards that lead to it: each `failed` gives it a new one."""

    def __init__(self, port: int) -> None:
        self.port, self.broken, self.asked = port, 0, list[str]()
        self.error: ForbiddenError | None = None
        self.reason = ""

    async def address(self) -> str:
        if self.error:
            raise self.error
        # Port 9 of the loopback: nobody there.
        return f"http://127.0.0.1:{9 if self.broken else self.port}"

    async def failed(self, address: str) -> None:
        self.broken = max(0, self.broken - 1)


class World:
    """A front on a real port, its pod, and a browser without cookies."""

    def __init__(self) -> None:
        self.tapping = 0
        self.seen: list[web.Request] = []

    async def start(self, stack: list[web.AppRunner]) -> None:
        pages = web.Application()
        pages.router.add_get("/{path:.*}", self._page)
        port = await _listen(pages, stack)
        self.pod = Pod(port)
        self.front = Front(self.pod, key=KEY, tap=self._tap, check=self._check, now=lambda: NOW)
        self.front.port = await _listen(self.front.application(), stack)
        self.url = f"http://127.0.0.1:{self.front.port}"
        self.cookie = {"Cookie": f"autotls-{self.front.port}={KEY}"}

    async def _page(self, request: web.Request) -> web.Response:
        self.seen.append(request)
        return web.Response(text=f"page {request.raw_path}", headers={"Set-Cookie": "a=b", "ETag": '"1"'})

    async def _tap(self, query: Mapping[str, str]) -> AsyncGenerator[Event, None]:
        self.tapping += 1
        try:
            while True:
                yield "entry", '{"path": "/"}'
                await asyncio.sleep(0.01)
        finally:
            self.tapping -= 1

    async def _check(self) -> list[Checked]:
        return [Checked("Section", "an-id", "it <works>", "ok")]


async def _listen(application: web.Application, stack: list[web.AppRunner]) -> int:
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    stack.append(runner)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner.addresses[0][1]


@pytest.fixture
async def world() -> AsyncGenerator[World, None]:
    stack: list[web.AppRunner] = []
    made = World()
    await made.start(stack)
    yield made
    for runner in reversed(stack):
        await runner.cleanup()


async def ask(world: World, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, str, Mapping[str, str]]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
        session.request(method, URL(world.url + path, encoded=True), headers=named, allow_redirects=False) as answer,
    ):
        return answer.status, await answer.text(), answer.headers


async def test_the_key_lets_in_and_leaves_the_address(world: World) -> None:
    status, _, headers = await ask(world, f"/topology?key={KEY}")
    assert (status, headers["Location"]) == (303, "/topology")
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    status, text, _ = await ask(world, "/topology", **world.cookie)
    assert (status, text) == (200, "page /topology")


@pytest.mark.parametrize("path", ["/", "/tap/stream", "/findings/content", "/front/static/page.js", "/?key=wrong"])
async def test_without_the_key_nothing_is_answered(world: World, path: str) -> None:
    assert (await ask(world, path))[0] == 403
    assert (await ask(world, path, Cookie=f"autotls-{world.front.port}=wrong"))[0] == 403
    assert world.seen == [] and world.tapping == 0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example:80"}, 421),
        ({"Host": "127.0.0.1:1"}, 421),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),  # another port of this machine
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
async def test_what_another_site_started_is_refused_even_with_the_cookie(
    world: World, headers: dict[str, str], expected: int
) -> None:
    for path in ("/", "/tap/stream", "/findings/content"):
        assert (await ask(world, path, **world.cookie, **headers))[0] == expected
    assert world.seen == [] and world.tapping == 0


async def test_nothing_can_be_written(world: World) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert (await ask(world, "/", method, **world.cookie))[0] == 405


async def test_the_pod_gets_no_cookie_and_sets_none(world: World) -> None:
    _, _, headers = await ask(world, "/workloads?q=a%2Fb&sort=-tls", **world.cookie, Authorization="Bearer x")
    [asked] = world.seen
    assert asked.raw_path == "/workloads?q=a%2Fb&sort=-tls"
    assert FRONTED_HEADER in asked.headers
    assert "Cookie" not in asked.headers and "Authorization" not in asked.headers
    assert "Set-Cookie" not in headers
    assert headers["ETag"] == '"1"'
    assert "default-src 'self'" in headers["Content-Security-Policy"]


async def test_an_answer_is_compressed_only_for_a_browser_that_asked(world: World) -> None:
    asked = URL(world.url)
    async with aiohttp.ClientSession(skip_auto_headers=["Accept-Encoding"], headers=world.cookie) as session:
        await session.get(asked)
        await session.get(asked, headers={"Accept-Encoding": "gzip"})
    assert [each.headers.get("Accept-Encoding") for each in world.seen] == [None, "gzip"]


async def test_a_pod_that_was_replaced_is_found_again_within_the_same_request(world: World) -> None:
    world.pod.broken = 1
    assert (await ask(world, **world.cookie))[:2] == (200, "page /")


async def test_a_pod_that_is_gone_is_explained_in_a_page_that_needs_nothing_of_the_pod(world: World) -> None:
    world.pod.broken = 2
    status, text, _ = await ask(world, **world.cookie)
    assert status == 502 and "does not answer" in text and "/front/static/page.js" in text
    assert (await ask(world, "/front/static/page.js", **world.cookie))[0] == 200
    world.pod.error = ForbiddenError(403, "Forbidden", "pods is <forbidden>")
    status, text, _ = await ask(world, **world.cookie)
    assert status == 502 and "pods is &lt;forbidden&gt;" in text


@pytest.mark.parametrize(
    "name", ["..%2fapp.py", "../app.py", "%2e%2e%2fapp.py", "nothing.js", ".", "..%2f..%2fcli%2ffront.py"]
)
async def test_only_the_files_of_the_pages_are_served(world: World, name: str) -> None:
    status, text, _ = await ask(world, f"/front/static/{name}", **world.cookie)
    assert status == 404 or text.startswith("page ")


async def test_findings_are_made_here_and_escaped(world: World) -> None:
    status, text, _ = await ask(world, "/findings/content", **world.cookie)
    assert status == 200 and "it &lt;works&gt;" in text
    assert world.seen == []


async def test_a_tap_ends_when_its_reader_goes(world: World) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{world.url}/tap/stream?path=/", headers=world.cookie) as answer:
            assert answer.headers["Content-Type"] == "text/event-stream"
            assert (await answer.content.readline()) == b"event: entry\n"
            assert world.tapping == 1
        async with asyncio.timeout(120):
            while world.tapping:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
