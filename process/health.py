"""Health and metrics on their own port, without TLS: for the kubelet and Prometheus.

A few lines over asyncio instead of a web framework: most processes need none, and each replica would carry it.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

_MAX_REQUEST_BYTES: Final = 8192
_REQUEST_S: Final = 5.0


class Readiness:
    """Named conditions of readiness; after `stop` never ready again, so that the endpoints forget this replica."""

    def __init__(self, conditions: Mapping[str, Callable[[], bool]]) -> None:
        self._conditions = dict(conditions)
        self._stopping = False

    def require(self, name: str, holds: Callable[[], bool]) -> None:
        """One more condition, of a part that came later."""
        self._conditions[name] = holds

    @property
    def stopping(self) -> bool:
        return self._stopping

    def stop(self) -> None:
        self._stopping = True

    def missing(self) -> tuple[str, ...]:
        """What keeps the process from being ready; empty when it is."""
        if self._stopping:
            return ("stopping",)
        return tuple(name for name, holds in self._conditions.items() if not holds())


class Health:
    """`/healthz` (the loop turns), `/readyz` (`missing` says what keeps it from being ready), `/metrics`."""

    def __init__(self, missing: Callable[[], tuple[str, ...]]) -> None:
        self._missing = missing

    @contextlib.asynccontextmanager
    async def served(self, port: int, host: str | None = None) -> AsyncGenerator[None, None]:
        """Answers while the block lasts, by default on every address of both families. Raises OSError when the port is
        taken."""
        server = await asyncio.start_server(self._answer, host, port, limit=_MAX_REQUEST_BYTES)
        try:
            yield
        finally:
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self.respond(head))
                await writer.drain()
        writer.close()

    def respond(self, head: bytes) -> bytes:
        """The whole answer to a request's head."""
        method, path, *_ = [*head.split(b"\r\n", 1)[0].decode("latin-1").split(" "), "", ""]
        if method not in ("GET", "HEAD"):
            return _response("405 Method Not Allowed", b"")
        match path.partition("?")[0]:
            case "/healthz":
                return _response("200 OK", b"ok\n")
            case "/readyz":
                missing = self._missing()
                if missing:
                    return _response("503 Service Unavailable", f"not ready: {', '.join(missing)}\n".encode())
                return _response("200 OK", b"ok\n")
            case "/metrics":
                return _response("200 OK", generate_latest(), CONTENT_TYPE_LATEST)
            case _:
                return _response("404 Not Found", b"")


def _response(status: str, body: bytes, content_type: str = "text/plain; charset=utf-8") -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + body
