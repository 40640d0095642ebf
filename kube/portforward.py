"""A port of a pod as a port on this machine's loopback: what `kubectl port-forward` does.

The protocol is the kubelet's `portforward` over WebSocket (kubelet/pkg/cri/streaming/portforward/websocket.go): two
channels for each port, data and errors; the first frame of each carries the port number. One WebSocket is one
connection. Half-closing does not exist there: when either side ends, both do.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import aiohttp

from kube.client import HttpApi
from kube.errors import ApiError, UnreachableError, scrub

PROTOCOL: Final = "v4.channel.k8s.io"
_DATA: Final = 0
_ERROR: Final = 1
_PORT_FRAME: Final = 3
_CHUNK: Final = 32 * 1024

Complain = Callable[[ApiError], None]


@asynccontextmanager
async def forwarded(
    api: HttpApi, *, namespace: str, pod: str, port: int, local_port: int = 0, complain: Complain | None = None
) -> AsyncGenerator[int, None]:
    """A port on 127.0.0.1 (`local_port`, or any) whose connections reach `port` of the pod while the block lasts.

    Each connection is one of its own through the API server, which asks for `create` on `pods/portforward`. Raises
    OSError when `local_port` is taken. Nobody is there to raise to when one connection fails: it is closed, and
    `complain` is told why.
    """
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward"
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await _carry(api, path, port, reader, writer)
        except ApiError as error:
            if complain:
                complain(error)
        except asyncio.CancelledError:
            # asyncio's server would report the cancellation that the end of the block asks for.
            pass
        finally:
            running.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", local_port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tuple(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _carry(
    api: HttpApi, path: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """One connection, until either side ends it. Raises ApiError."""
    async with api.websocket(path, query=(("ports", str(port)),), protocol=PROTOCOL) as socket:
        await _until_first(lambda: _send(reader, socket), lambda: _receive(socket, writer))


async def _until_first(*parts: Callable[[], Awaitable[None]]) -> None:
    tasks = [asyncio.ensure_future(part()) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _send(reader: asyncio.StreamReader, socket: "aiohttp.ClientWebSocketResponse[bool]") -> None:
    with suppress(ConnectionError, aiohttp.ClientError):
        while chunk := await reader.read(_CHUNK):
            await socket.send_bytes(bytes((_DATA,)) + chunk)


async def _receive(socket: "aiohttp.ClientWebSocketResponse[bool]", writer: asyncio.StreamWriter) -> None:
    greeted: set[int] = set()
    async for message in socket:
        frame: bytes = message.data
        if message.type is not aiohttp.WSMsgType.BINARY or not frame:
            continue
        channel = frame[0]
        if channel not in greeted and len(frame) == _PORT_FRAME:
            greeted.add(channel)
        elif channel == _ERROR:
            raise UnreachableError("PortForward", scrub(frame[1:].decode(errors="replace")))
        else:
            with suppress(ConnectionError):
                writer.write(frame[1:])
                await writer.drain()
