"""Calls an ASGI application in memory, in the parts and with the silences that a test wants."""

import asyncio
from collections.abc import Sequence
from typing import Any


async def call(
    app: Any,
    method: str,
    target: str,
    body: bytes | Sequence[bytes] = b"",
    *,
    headers: Sequence[tuple[bytes, bytes]] = (),
    complete: bool = True,
    disconnect: bool = False,
) -> tuple[int, bytes]:
    """Status and body of the answer. `body` may come in parts; not `complete`: the last part never comes, or, with
    `disconnect`, the client goes away instead."""
    parts = [body] if isinstance(body, bytes) else list(body)
    path, _, query = target.partition("?")
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if parts:
            part = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(parts) or not complete}
        if disconnect:
            return {"type": "http.disconnect"}
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": list(headers),
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8443),
    }
    await app(scope, receive, send)
    assert sent[0]["type"] == "http.response.start"
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])
