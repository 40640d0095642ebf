"""Steady load with open-loop pacing: `pacer.py ADDRESS PORT RATE FILE [KIND:PORT:RATE ...]`.

Requests begin at fixed times whatever became of those before, so a standstill is seen and not waited out; durations
count from the time a request was due. It runs in a pod's network (nsenter), so it imports nothing but the standard
library. A line of JSON for each request.

The first is HTTP: every second request uses a connection of its own, the others share kept ones. Further kinds:
`bytes` (a connection of its own, what is sent comes back), `first` (the same on a port where the server speaks first)
and `long` (one connection for all of them; when it breaks that is a failure, and there is another).
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, TextIO

# Longer than a busy machine stands still: late is measured, and only what is never answered is a failure.
_TIMEOUT_S = 120.0
_REQUEST = b"GET / HTTP/1.1\r\nHost: web\r\nX-Marker: steady-load\r\n\r\n"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Ask = Callable[[int], Awaitable[int]]
# No line of text and no HTTP, so that who looks at the first bytes must find out.
_BYTES = b"\x01steady-load"


async def ask(connection: Connection) -> int:
    """The status of one answer; its body is read."""
    reader, writer = connection
    writer.write(_REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    length = next((int(line.split(":")[1]) for line in lines if line.startswith("content-length:")), 0)
    await reader.readexactly(length)
    return int(lines[0].split()[1])


async def request(address: str, port: int, kept: list[Connection] | None) -> int:
    async with asyncio.timeout(_TIMEOUT_S):
        while kept:
            connection = kept.pop()
            # A server may close an idle connection at any time; every HTTP client looks before it uses one again.
            if not connection[0].at_eof():
                break
            connection[1].close()
        else:
            connection = await asyncio.open_connection(address, port)
        try:
            status = await ask(connection)
        except BaseException:
            connection[1].close()
            raise
    if kept is None:
        connection[1].close()
    else:
        kept.append(connection)
    return status


async def echoed(connection: Connection) -> int:
    """200, as if it were HTTP, when what is sent comes back."""
    reader, writer = connection
    writer.write(_BYTES)
    received = await reader.readexactly(len(_BYTES))
    return 200 if received == _BYTES else 0


async def exchange(address: str, port: int, *, greeted: bool) -> int:
    async with asyncio.timeout(_TIMEOUT_S):
        connection = await asyncio.open_connection(address, port)
        try:
            if greeted:
                await connection[0].readuntil(b"\n")
            return await echoed(connection)
        finally:
            connection[1].close()


class Long:
    """One connection, used by one request after the other."""

    def __init__(self, address: str, port: int) -> None:
        self._target = address, port
        self._turn = asyncio.Lock()
        self._connection: Connection | None = None

    async def ask(self, _number: int) -> int:
        async with asyncio.timeout(_TIMEOUT_S), self._turn:
            self._connection = self._connection or await asyncio.open_connection(*self._target)
            try:
                return await echoed(self._connection)
            except BaseException:
                self._connection[1].close()
                self._connection = None
                raise


def kind_of(kind: str, address: str, port: int) -> Ask:
    """What one request of that kind does, given its number."""
    if kind == "http":
        kept: list[Connection] = []
        return lambda number: request(address, port, kept if number % 2 else None)
    if kind == "long":
        return Long(address, port).ask
    return lambda _: exchange(address, port, greeted=kind == "first")


async def one(kind: str, due: float, asked: Awaitable[int], file: TextIO) -> None:
    answer: dict[str, Any] = {"at": time.time(), "kind": kind}
    try:
        answer["status"] = await asked
    except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
        answer["error"] = f"{type(error).__name__}: {error}"
    answer["ms"] = round((time.monotonic() - due) * 1000, 1)
    file.write(json.dumps(answer) + "\n")


async def pace(kind: str, address: str, port: int, rate: float, file: TextIO) -> None:
    """For ever: `rate` requests of that kind a second."""
    ask_once, running, start = kind_of(kind, address, port), set[asyncio.Task[None]](), time.monotonic()
    for number in itertools.count():
        due = start + number / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        task = asyncio.create_task(one(kind, due, ask_once(number), file), name=kind)
        running.add(task)
        task.add_done_callback(running.discard)


async def main() -> None:
    address, port, rate, path, *further = sys.argv[1:]
    wanted = [("http", port, rate), *(text.split(":") for text in further)]
    with open(path, "a", buffering=1) as file:  # noqa: ASYNC230, PTH123
        async with asyncio.TaskGroup() as group:
            for kind, where, often in wanted:
                group.create_task(pace(kind, address, int(where), float(often), file), name=kind)


if __name__ == "__main__":
    asyncio.run(main())
