"""The door of `autotls tap`: HTTP on the loopback of discovery's own pod, so only a port-forward of the API server
leads to it.

    POST /tap, Authorization: Bearer …, Upgrade: autotls-tap, a Selection as body
    → 101, then lines (discovery.entries.Line) until either side closes; or 4xx with one Line that says why not.

The command sends an empty line every few seconds: a command that is gone, however it went, taps no longer.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final, Protocol

import msgspec
import structlog

from discovery.entries import Line, Selection, faults
from discovery.errors import TapLimitError, TapRefusedError
from discovery.metrics import TAPS, TAPS_REFUSED
from discovery.taps import Session, Taps
from kube.reviews import User

PATH: Final = "/tap"
UPGRADE: Final = "autotls-tap"
# Seconds between two lines about how things are, and from the command's side between two signs of life.
ALIVE_S: Final = 5.0
# A command that was silent for so long is gone.
SILENCE_S: Final = 30.0
# Rights that were taken away end a tap after so long at most.
RECHECK_S: Final = 60.0
_REQUEST_S: Final = 10.0
# A token of a large identity provider is a few kilobytes.
_MAX_HEAD_BYTES: Final = 64 * 1024
_MAX_BODY_BYTES: Final = 16 * 1024
_REASONS: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    429: "Too Many Requests",
}

_log: Final = structlog.get_logger("discovery")


class Gate(Protocol):
    """Who may tap: discovery.tap_access.Access."""

    async def user_of(self, token: str) -> User: ...
    async def check(self, user: User, namespace: str) -> None: ...


class TapServer:
    """`proxies` says how many proxies of a session are connected to this replica."""

    def __init__(
        self,
        taps: Taps,
        gate: Gate,
        proxies: Callable[[Session], int],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._taps, self._gate, self._proxies, self._clock = taps, gate, proxies, clock
        self._running: set[asyncio.Task[None]] = set()

    async def serve(self, port: int, host: str = "127.0.0.1") -> asyncio.Server:
        """Listens; `close` ends what is open."""
        return await asyncio.start_server(self._connected, host, port, limit=_MAX_HEAD_BYTES)

    async def close(self) -> None:
        for task in tuple(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            await self._answer(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever it was is gone, or spoke no HTTP
        except asyncio.CancelledError:
            pass  # asyncio's server would report the end that `close` asks for
        finally:
            self._running.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_S):
                token, selection = await _request(reader)
                user = await self._gate.user_of(token)
                await self._gate.check(user, selection.of.namespace)
            wake = asyncio.Event()
            session = self._taps.open(selection, wake.set)
        except TapRefusedError as error:
            await _refuse(writer, error.status, error.message, error.hint)
            return
        except TapLimitError as error:
            await _refuse(writer, 429, error.message, error.hint)
            return
        _log.info("tap_opened", user=user.username, of=str(selection.of))
        TAPS.set(len(self._taps))
        listening = asyncio.create_task(_listen(reader, wake), name="tap-listen")
        try:
            writer.write(
                f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {UPGRADE}\r\n\r\n".encode()
            )
            await self._speak(session, user, writer, wake, listening)
        finally:
            self._taps.close(session)
            TAPS.set(len(self._taps))
            listening.cancel()
            _log.info("tap_closed", user=user.username, of=str(selection.of))

    async def _speak(
        self,
        session: Session,
        user: User,
        writer: asyncio.StreamWriter,
        wake: asyncio.Event,
        listening: "asyncio.Task[None]",
    ) -> None:
        """Until `listening` has ended or the user may not tap any longer."""
        news_due = self._clock()
        check_due = news_due + RECHECK_S
        while not listening.done():
            wake.clear()
            now = self._clock()
            if now >= news_due:
                writer.write(session.news(self._proxies(session)))
                news_due = now + ALIVE_S
            writer.write(session.lines())
            async with asyncio.timeout(SILENCE_S):
                await writer.drain()
            if now >= check_due:
                check_due = now + RECHECK_S
                try:
                    await self._gate.check(user, session.selection.of.namespace)
                except TapRefusedError as error:
                    writer.write(_line(error.message, error.hint))
                    return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, news_due - self._clock())):
                    await wake.wait()


async def _listen(reader: asyncio.StreamReader, wake: asyncio.Event) -> None:
    """Until the command is gone."""
    try:
        with contextlib.suppress(OSError, TimeoutError):
            while True:
                async with asyncio.timeout(SILENCE_S):
                    if not await reader.read(1024):
                        return
    finally:
        wake.set()


async def _request(reader: asyncio.StreamReader) -> tuple[str, Selection]:
    """The bearer token and what is to be tapped. Raises TapRefusedError, OSError, asyncio.IncompleteReadError."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *fields = head.split("\r\n")
    headers = {name.strip().lower(): text.strip() for name, _, text in (field.partition(":") for field in fields)}
    if first.split(" ")[:2] != ["POST", PATH]:
        raise TapRefusedError(404, f"only POST {PATH} is here")
    if headers.get("upgrade", "").lower() != UPGRADE:
        raise TapRefusedError(400, f"a tap is an upgrade to {UPGRADE}")
    length = headers.get("content-length", "")
    if not (length.isascii() and length.isdigit() and int(length) <= _MAX_BODY_BYTES):
        raise TapRefusedError(400, f"the body's length must be said, and at most {_MAX_BODY_BYTES} bytes")
    try:
        selection = msgspec.json.decode(await reader.readexactly(int(length)), type=Selection)
    except msgspec.MsgspecError as error:
        raise TapRefusedError(400, f"what is to be tapped cannot be read: {error}") from None
    if fault := faults(selection):
        raise TapRefusedError(400, fault)
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return (token.strip() if scheme.lower() == "bearer" else ""), selection


async def _refuse(writer: asyncio.StreamWriter, status: int, message: str, hint: str) -> None:
    TAPS_REFUSED.labels(str(status)).inc()
    _log.warning("tap_refused", status=status, error=message)
    body = _line(message, hint)
    head = f"HTTP/1.1 {status} {_REASONS.get(status, 'Service Unavailable')}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    await writer.drain()


def _line(message: str, hint: str) -> bytes:
    return msgspec.json.encode(Line(error=message, hint=hint)) + b"\n"
