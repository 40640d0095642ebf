"""What a pod of the traffic matrix serves beside nginx, exim and testbox-server: gRPC, WebSocket and bytes.

It runs in the test image, mounted from a ConfigMap: the standard library, Debian's python3-grpcio and
python3-websockets. Every answer says which pod gave it and who asked: {"pod", "peer", "echo"}.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import grpc
import websockets

WEBSOCKET, GRPC, BYTES = 8082, 9000, 7000
# grpc.health.v1.HealthCheckResponse with status SERVING: what the kubelet's gRPC probe wants to read.
_SERVING = b"\x08\x01"


def answer(peer: str, echo: str) -> str:
    return json.dumps({"pod": socket.gethostname(), "peer": peer.removeprefix("::ffff:"), "echo": echo})


def caller_of(context: Any) -> str:
    """`ipv4:10.0.0.1:99` or `ipv6:[::1]:99`, with the brackets written as %5B and %5D."""
    address = context.peer().partition(":")[2].replace("%5B", "[").replace("%5D", "]")
    return address.rpartition(":")[0].strip("[]")


async def unary(request: bytes, context: Any) -> bytes:
    return answer(caller_of(context), request.decode()).encode()


async def server_stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
    for _ in range(3):
        yield answer(caller_of(context), request.decode()).encode()


async def client_stream(requests: AsyncIterator[bytes], context: Any) -> bytes:
    heard = [request.decode() async for request in requests]
    return answer(caller_of(context), " ".join(heard)).encode()


async def both_streams(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield answer(caller_of(context), request.decode()).encode()


async def healthy(_request: bytes, _context: Any) -> bytes:
    return _SERVING


async def greet(connection: Any) -> None:
    async for message in connection:
        await connection.send(answer(connection.remote_address[0], message))


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    peer = writer.get_extra_info("peername")[0]
    while line := await reader.readline():
        writer.write(answer(peer, line.decode("latin-1").strip()).encode() + b"\n")
        await writer.drain()
    writer.close()


async def main() -> None:
    server = grpc.aio.server()
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "BothStreams": grpc.stream_stream_rpc_method_handler(both_streams),
    }
    health = {"Check": grpc.unary_unary_rpc_method_handler(healthy)}
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("matrix.Echo", methods),
            grpc.method_handlers_generic_handler("grpc.health.v1.Health", health),
        )
    )
    server.add_insecure_port(f"[::]:{GRPC}")
    await server.start()
    await websockets.serve(greet, None, WEBSOCKET)
    await asyncio.start_server(echo, None, BYTES)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
