"""gRPC (HTTP/2 without TLS) in a pod: `serve ADDRESS PORT`, or `call ADDRESS PORT COUNT`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from tests.proxy.namespaces import WITHIN_S, Network


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
        try:
            channel.unary_unary("/test/Missing")(b"", timeout=60)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED  # type: ignore[attr-defined]
        else:
            raise AssertionError("a method that is not there answered")
    print("called", flush=True)


@contextmanager
def serving(network: Network, address: str, port: int) -> Generator[None]:
    """The server in that network."""
    words = [*_inside(network), "serve", address, str(port)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "serving\n"
            yield
        finally:
            process.terminate()


def calls(network: Network, address: str, port: int, count: int) -> None:
    """So many calls, a stream, and a call of a method that is not there."""
    words = [*_inside(network), "call", address, str(port), str(count)]
    called = subprocess.run(words, capture_output=True, text=True, timeout=WITHIN_S, check=True)
    assert called.stdout == "called\n"


def _inside(network: Network) -> tuple[str, ...]:
    return ("ip", "netns", "exec", network.namespace, sys.executable, "-m", "tests.discovery.h2")


if __name__ == "__main__":
    {"serve": serve, "call": call}[sys.argv[1]](*sys.argv[2:])
