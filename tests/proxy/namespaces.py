"""Two pods' networks on this machine: network namespaces joined by a veth pair, and sockets inside them."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


# Deadlines, not measures: far above what a machine that is ten times slower needs.
WITHIN_S = 120.0
ANSWER_S = 30.0


def eventually(check: Callable[[], T], *, within_s: float = WITHIN_S, what: str = "") -> T:
    """What `check` returns once it is true; an OSError, HTTPException or AssertionError inside counts as not yet."""
    deadline = time.monotonic() + within_s
    while True:
        # Looked at before the check: one that begins in time may take as long as it needs.
        over = time.monotonic() >= deadline
        try:
            result = check()
        except (OSError, http.client.HTTPException, AssertionError) as error:
            last: object = error
        else:
            if result:
                return result
            last = result
        if over:
            raise AssertionError(f"not within {within_s} s: {what or check} (last: {last!r})")
        time.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Network:
    """One pod's network: its namespace and its two addresses."""

    namespace: str
    ipv4: str
    ipv6: str

    def inside(self, function: Callable[[], T]) -> T:
        """Runs `function` in a thread of this namespace. A socket it opens stays there, whoever uses it later."""
        outcome: list[T] = []
        failure: list[BaseException] = []

        def run() -> None:
            try:
                with Path(f"/var/run/netns/{self.namespace}").open("rb") as handle:
                    if _LIBC.setns(handle.fileno(), _CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), f"setns {self.namespace}")
                outcome.append(function())
            except BaseException as error:  # handed to the caller's thread below
                failure.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return outcome[0]

    def connect(self, address: str, port: int, timeout_s: float = ANSWER_S) -> socket.socket:
        return self.inside(lambda: socket.create_connection((address, port), timeout=timeout_s))

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ip", "netns", "exec", self.namespace, *command], check=check, capture_output=True, text=True
        )


@contextlib.contextmanager
def two_networks() -> Generator[tuple[Network, Network]]:
    """A server's and a client's network, on one link, IPv4 and IPv6. The names are new in every run."""
    tag = secrets.token_hex(3)
    server = Network(f"autotls-{tag}-a", "10.203.0.1", "fd00:203::1")
    client = Network(f"autotls-{tag}-b", "10.203.0.2", "fd00:203::2")
    made: list[str] = []
    try:
        for network in (server, client):
            _ip("netns", "add", network.namespace)
            made.append(network.namespace)
        _ip("-n", server.namespace, "link", "add", "eth0", "type", "veth",
            "peer", "name", "eth0", "netns", client.namespace)  # fmt: skip
        for network in (server, client):
            # nodad: the address is usable at once.
            _ip("-n", network.namespace, "addr", "add", f"{network.ipv4}/24", "dev", "eth0")
            _ip("-n", network.namespace, "addr", "add", f"{network.ipv6}/64", "dev", "eth0", "nodad")
            _ip("-n", network.namespace, "link", "set", "lo", "up")
            _ip("-n", network.namespace, "link", "set", "eth0", "up")
        yield server, client
    finally:
        for namespace in made:
            _ip("netns", "del", namespace)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class App:
    """A TCP server in a namespace that remembers who came.

    It echoes; with `greeting` it speaks first; with `http` it answers every request with the caller's address.
    """

    def __init__(self, network: Network, address: str, port: int, *, greeting: bytes = b"", http: bool = False) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._greeting, self._http = greeting, http
        self.peers: list[str] = []
        self.requests: list[bytes] = []
        self._open: list[socket.socket] = []
        self._listener = network.inside(lambda: socket.create_server((address, port), family=family))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, peer = self._listener.accept()
            except OSError:
                return
            self.peers.append(str(peer[0]))
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection, str(peer[0])), daemon=True).start()

    def _serve(self, connection: socket.socket, peer: str) -> None:
        with contextlib.suppress(OSError), connection:
            if self._greeting:
                connection.sendall(self._greeting)
            while data := connection.recv(65536):
                self.requests.append(data)
                if self._http:
                    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(peer)}\r\n\r\n{peer}"
                    data = head.encode()
                connection.sendall(data)

    def __enter__(self) -> App:
        return self

    def __exit__(self, *_: object) -> None:
        # shutdown wakes the accept() in the other thread; close alone would not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        # First, so that a connection that it is just accepting is ended with the others.
        self._thread.join(ANSWER_S)
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def http_get(network: Network, address: str, port: int, path: str, method: str = "GET") -> tuple[int, str]:
    """Status and body of one request."""
    with network.connect(address, port) as connection:
        request = f"{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        status, _, body = http_answer(connection, method)
        return status, body


def http_answer(connection: socket.socket, method: str = "GET") -> tuple[int, http.client.HTTPMessage, str]:
    """Status, headers and body of the answer to the one request that is under way, however the bytes arrive."""
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    body = response.read().decode(errors="replace")
    return response.status, response.headers, body


def closed(connection: socket.socket) -> bool:
    """True when the other side ends the connection without a byte."""
    try:
        return connection.recv(100) == b""
    except ConnectionError:
        return True
