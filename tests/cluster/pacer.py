"""Steady HTTP load with open-loop pacing: `pacer.py ADDRESS PORT RATE FILE`.

Requests begin at fixed times whatever became of those before, so a standstill is seen and not waited out; durations
count from the time a request was due. Every second request uses a connection of its own, the others share kept ones.
It runs in a pod's network (nsenter), so it imports nothing but the standard library. A line of JSON for each request.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TextIO

_TIMEOUT_S = 15.0
_REQUEST = b"GET / HTTP/1.1\r\nHost: web\r\nX-Marker: steady-load\r\n\r\n"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Ask = Callable[[], Awaitable[int]]


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


async def one(due: float, ask_once: Ask, file: TextIO) -> None:
    answer: dict[str, Any] = {"at": time.time()}
    try:
        answer["status"] = await ask_once()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
        answer["error"] = f"{type(error).__name__}: {error}"
    answer["ms"] = round((time.monotonic() - due) * 1000, 1)
    file.write(json.dumps(answer) + "\n")


async def main() -> None:
    address, port, rate, path = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
    kept: list[Connection] = []
    start = time.monotonic()
    running: set[asyncio.Task[None]] = set()
    with open(path, "a", buffering=1) as file:  # noqa: ASYNC230, PTH123
        for number in itertools.count():
            due = start + number / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            ask_once = partial(request, address, port, kept if number % 2 else None)
            task = asyncio.create_task(one(due, ask_once, file), name="request")
            running.add(task)
            task.add_done_callback(running.discard)


if __name__ == "__main__":
    asyncio.run(main())
