"""The port for the kubelet and Prometheus, which every process of the control plane serves."""

import socket
from collections.abc import Iterator

import aiohttp
import pytest
from prometheus_client import CONTENT_TYPE_LATEST

from cluster.ports import reserved
from process.health import Health, Readiness


@pytest.fixture
def own_port() -> Iterator[int]:
    with reserved() as port:
        yield port


async def test_health_readiness_and_metrics_are_served_and_the_port_is_free_afterwards(own_port: int) -> None:
    missing = ["cluster", "certificate"]
    port = own_port
    for _ in range(2):
        async with (
            Health(lambda: tuple(missing)).served(port, "127.0.0.1"),
            aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
        ):
            for path, status, text in (
                ("/healthz", 200, "ok\n"),
                ("/readyz", 503, "not ready: cluster, certificate\n"),
                ("/readyz?verbose", 503, "not ready: cluster, certificate\n"),
                ("/other", 404, ""),
            ):
                async with session.get(path) as answer:
                    assert (answer.status, await answer.text()) == (status, text)
            async with session.post("/healthz") as answer:
                assert answer.status == 405
            async with session.get("/metrics") as answer:
                assert answer.headers["Content-Type"] == CONTENT_TYPE_LATEST
                assert "# TYPE python_info gauge" in await answer.text()


async def test_a_port_that_is_taken_is_an_error_at_the_start() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(OSError, match="in use"):
            async with Health(tuple).served(other.getsockname()[1], "127.0.0.1"):
                pass


@pytest.mark.parametrize("head", [b"\r\n\r\n", b"GET", b"\xff\xfe \x00\r\n\r\n"])
def test_bytes_that_are_no_request_get_an_answer(head: bytes) -> None:
    assert Health(tuple).respond(head).startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 405 "))


def test_what_stops_is_never_ready_again() -> None:
    holds = {"certificate": False}
    readiness = Readiness({"certificate": lambda: holds["certificate"]})
    assert readiness.missing() == ("certificate",)
    holds["certificate"] = True
    assert readiness.missing() == ()
    readiness.require("listening", lambda: holds["listening"])
    holds["listening"] = False
    assert readiness.missing() == ("listening",)
    holds["listening"] = True
    assert readiness.missing() == ()
    readiness.stop()
    assert readiness.stopping
    assert readiness.missing() == ("stopping",)
