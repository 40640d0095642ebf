"""A small HTTPS load generator: keep-alive connections, each sending its next request when the last is answered."""

import asyncio
import itertools
import socket
import ssl
import subprocess
import time
from typing import NamedTuple

_START_S = 30.0


class Load(NamedTuple):
    """What the client saw."""

    p50_ms: float
    p99_ms: float
    response_bytes: int


async def run_load(
    port: int, path: str, bodies: list[bytes], requests: int, tls: ssl.SSLContext, *, connections: int
) -> Load:
    """Sends `requests` requests over `connections` connections. Raises RuntimeError unless each is answered 200."""
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: "
    messages = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
    turn = itertools.count()
    latencies: list[float] = []
    sizes: list[int] = []

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        while (number := next(turn)) < requests:
            started = time.perf_counter()
            writer.write(messages[number % len(messages)])
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if length:
                await reader.readexactly(length)
            latencies.append(time.perf_counter() - started)
            sizes.append(length)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(answer.decode("latin-1"))
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(connection())
    latencies.sort()
    return Load(latencies[len(latencies) // 2] * 1e3, latencies[len(latencies) * 99 // 100] * 1e3, max(sizes))


def wait_until_open(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Returns when something listens. Raises RuntimeError if the process ends or half a minute passes."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("the server did not start")
