"""gRPC (HTTP/2 without TLS) in a pod: `serve ADDRESS PORT`, or `call ADDRESS PORT COUNT`."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc


def echo(request: bytes, _: Any) -> bytes:
    return request


def stream(requests: Any, _: Any) -> Any:
    yield from requests


def serve(address: str, port: str) -> None:
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Stream": grpc.stream_stream_rpc_method_handler(stream),
    }
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", handlers),))
    assert server.add_insecure_port(f"{address}:{port}")
    server.start()
    print("serving", flush=True)
    server.wait_for_termination()


def call(address: str, port: str, count: str) -> None:
    with grpc.insecure_channel(f"{address}:{port}") as channel:
        unary, streamed = channel.unary_unary("/test/Echo"), channel.stream_stream("/test/Stream")
        assert [unary(b"%d" % n, timeout=60) for n in range(int(count))] == [b"%d" % n for n in range(int(count))]
        assert list(streamed(iter([b"a", b"b", b"c"]), timeout=60)) == [b"a", b"b", b"c"]
    print("called", flush=True)


if __name__ == "__main__":
    {"serve": serve, "call": call}[sys.argv[1]](*sys.argv[2:])
