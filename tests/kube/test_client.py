"""The HTTP client against servers that misbehave on a socket, and kubeconfigs that are wrong."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

from kube import errors
from kube.access import Access
from kube.client import Api, HttpApi, connect

Handler = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def speaking(handler: Handler) -> AsyncIterator[Api]:
    """A client of a server that answers every request head with `handler`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await handler(head, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    client = HttpApi(Access(f"http://127.0.0.1:{port}"))
    try:
        yield client
    finally:
        await client.close()
        listener.close()


def answer(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def test_query_and_body_arrive_as_they_were_given() -> None:
    heads: list[bytes] = []

    async def handler(head: bytes, writer: asyncio.StreamWriter) -> None:
        heads.append(head)
        writer.write(answer("200 OK", b"{}"))

    async with speaking(handler) as api:
        token = "eyJ2IjoibWV0YSJ9+/=="
        query = (("continue", token), ("labelSelector", "app in (a, b),!c"))
        assert await api.request("PATCH", "/api/v1/pods", query=query, body=b"{}", content_type="x/y") == b"{}"
    method, target, _ = heads[0].split(b" ", 2)
    assert method == b"PATCH"
    assert dict(parse_qsl(target.decode().partition("?")[2], strict_parsing=True)) == dict(query)
    assert b"content-type: x/y" in heads[0].lower()
    assert b"accept-encoding: identity" in heads[0].lower()


async def test_nobody_listening_is_unreachable() -> None:
    client = HttpApi(Access("http://127.0.0.1:1"))
    with pytest.raises(errors.UnreachableError) as caught:
        await client.request("GET", "/api/v1/pods")
    assert caught.value.transient
    with pytest.raises(errors.UnreachableError):
        async with client.lines("/api/v1/pods", timeout_s=1):
            pass
    await client.close()


async def test_a_server_that_never_answers_is_given_up_in_time() -> None:
    async def handler(head: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3600)

    async with speaking(handler) as api:
        with pytest.raises(errors.UnreachableError) as caught:
            await api.request("GET", "/api/v1/pods", timeout_s=0.05)
        assert caught.value.reason == "Timeout"


async def test_an_answer_that_breaks_off_is_unreachable() -> None:
    async def handler(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer("200 OK", b"{" + b" " * 100)[:-50])
        writer.close()

    async with speaking(handler) as api:
        with pytest.raises(errors.UnreachableError):
            await api.request("GET", "/api/v1/pods")


async def test_an_error_answer_has_its_type_and_its_wait() -> None:
    async def handler(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer("429 Too Many", b'{"kind":"Status","reason":"TooManyRequests"}', "Retry-After: 9"))

    async with speaking(handler) as api:
        with pytest.raises(errors.TooManyRequestsError) as caught:
            await api.request("GET", "/api/v1/pods")
        assert caught.value.retry_after_s == 9
        with pytest.raises(errors.TooManyRequestsError):
            async with api.lines("/api/v1/pods", timeout_s=60):
                pass


async def test_an_error_answer_that_breaks_off_keeps_its_type() -> None:
    async def handler(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b'HTTP/1.1 429 Too Many Requests\r\nContent-Length: 500\r\nRetry-After: 3\r\n\r\n{"kind":')
        await writer.drain()
        writer.close()

    async with speaking(handler) as api:
        with pytest.raises(errors.TooManyRequestsError) as asked:
            await api.request("GET", "/api/v1/pods")
        assert asked.value.retry_after_s == 3
        # What is no ApiError would end a reflector, and the process with it.
        with pytest.raises(errors.TooManyRequestsError):
            async with api.lines("/api/v1/pods", timeout_s=60):
                pass


async def test_redirects_are_not_followed_with_our_token() -> None:
    async def handler(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer("302 Found", b"", "Location: http://127.0.0.1:1/"))

    async with speaking(handler) as api:
        with pytest.raises(errors.ApiError) as caught:
            await api.request("GET", "/api/v1/pods")
        assert caught.value.status == 302


async def test_lines_come_whole_however_the_bytes_arrive() -> None:
    large = b'{"a":"' + b"x" * 6_000_000 + b'"}'

    async def handler(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in (b"on", b"e\n\ntw", b"o\n", large, b"\n", b"half"):
            writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async with speaking(handler) as api, api.lines("/api/v1/pods", timeout_s=120) as lines:
        assert [line async for line in lines] == [b"one", b"two", large]


async def test_a_watch_that_breaks_gives_its_lines_and_then_is_unreachable() -> None:
    async def handler(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n")
        await writer.drain()
        writer.close()

    seen: list[bytes] = []
    async with speaking(handler) as api:
        with pytest.raises(errors.UnreachableError):
            async with api.lines("/api/v1/pods", timeout_s=120) as lines:
                async for line in lines:
                    seen.append(line)
    assert seen == [b"one"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "current-context"),
        ("current-context: x\ncontexts: []\nclusters: []\nusers: []\n", "name x"),
        ("[1, 2]", "kubeconfig"),
        ("{: bad", "kubeconfig"),
        ("", "kubeconfig"),
        ("current-context: x\ncontexts: [{name: x, context: {cluster: gone}}]\nclusters: []\n", "gone"),
    ],
)
async def test_a_bad_kubeconfig_is_one_clear_error(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(errors.KubeconfigError, match=said):
        async with connect(kubeconfig=str(path)):
            pass


async def test_a_missing_kubeconfig_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.KubeconfigError, match=r"no kubeconfig at .*nowhere"):
        async with connect(kubeconfig=str(tmp_path / "nowhere")):
            pass


async def test_a_pod_without_its_token_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    with pytest.raises(errors.KubeconfigError, match="automountServiceAccountToken"):
        async with connect():
            pass
