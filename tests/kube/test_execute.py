"""Commands in a container, against a server that speaks the API server's side of the protocol."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from kube import errors
from kube.access import Access
from kube.client import HttpApi
from kube.execute import PROTOCOL, executing

Talk = Callable[[web.WebSocketResponse], Awaitable[None]]
POD = {"namespace": "shop", "pod": "web-1", "container": "autotls-proxy"}


@asynccontextmanager
async def answering(talk: Talk, seen: list[web.Request]) -> AsyncIterator[HttpApi]:
    async def handle(request: web.Request) -> web.WebSocketResponse:
        seen.append(request)
        socket = web.WebSocketResponse(protocols=(PROTOCOL,))
        await socket.prepare(request)
        await talk(socket)
        await socket.close()
        return socket

    application = web.Application()
    application.router.add_get("/api/v1/namespaces/shop/pods/web-1/exec", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    client = HttpApi(Access(f"http://127.0.0.1:{runner.addresses[0][1]}"))
    try:
        yield client
    finally:
        await client.close()
        await runner.cleanup()


def status(word: str, message: str = "") -> bytes:
    return b"\x03" + json.dumps({"status": word, "message": message}).encode()


async def test_words_arrive_as_they_were_given_and_output_ends_with_the_command() -> None:
    async def talk(socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(b"\x01")  # the API server's empty greeting
        said = await socket.receive_bytes()
        await socket.send_bytes(b"\x01heard " + said[1:])
        await socket.send_bytes(status("Success"))

    seen: list[web.Request] = []
    async with answering(talk, seen) as api, executing(api, ("nc", "-U", "/a b&c"), **POD) as execution:
        await execution.send(b"hello")
        assert await execution.read() == b"heard hello"
        assert await execution.read() == b""
        assert await execution.read() == b""
    assert seen[0].query.getall("command") == ["nc", "-U", "/a b&c"]
    assert seen[0].query["container"] == "autotls-proxy"


async def test_a_command_that_fails_is_an_error_in_its_own_words() -> None:
    async def talk(socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(b"\x02nc: unix connect failed: No such file")
        await socket.send_bytes(status("Failure", "command terminated with exit code 1"))

    async with answering(talk, []) as api, executing(api, ("nc",), **POD) as execution:
        with pytest.raises(errors.UnreachableError, match="No such file"):
            await execution.read()


async def test_a_command_that_cannot_be_started_is_an_error_in_the_kubelets_words() -> None:
    async def talk(socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(status("Failure", "container not found"))

    async with answering(talk, []) as api, executing(api, ("nc",), **POD) as execution:
        with pytest.raises(errors.UnreachableError, match="container not found"):
            await execution.read()


async def test_a_connection_that_breaks_ends_the_output() -> None:
    async def talk(socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(b"\x01half an ans")

    async with answering(talk, []) as api, executing(api, ("nc",), **POD) as execution:
        assert await execution.read() == b"half an ans"
        assert await execution.read() == b""


async def test_a_pod_that_is_not_there_is_not_found() -> None:
    async def talk(_: web.WebSocketResponse) -> None: ...

    async with answering(talk, []) as api:
        with pytest.raises(errors.NotFoundError):
            async with executing(api, ("nc",), namespace="shop", pod="nobody", container="c"):
                pass
