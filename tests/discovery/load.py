"""Steady load from inside a pod that remembers every failure: HTTP on kept and on new connections, and raw TCP."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable

from tests.discovery.network import enter
from tests.proxy.namespaces import WITHIN_S, Network

TIMEOUT_S = 30


class Load:
    """Runs until the block ends; `failures` says what went wrong, by kind."""

    def __init__(
        self, network: Network, address: str, port: int, *, tcp_port: int | None = None, pause_s: float = 0.01
    ):
        self._network, self._target, self._tcp_port = network, (address, port), tcp_port
        self._pause_s = pause_s
        self._stop = threading.Event()
        self.failures: Counter[str] = Counter()
        self.slowest_s = 0.0
        kinds: dict[str, Callable[[], None]] = {"kept": self._kept, "fresh": self._fresh}
        if tcp_port:
            kinds["tcp"] = self._tcp
        self.done: Counter[str] = Counter(dict.fromkeys(kinds, 0))
        self._threads = [
            threading.Thread(target=self._run, args=(kind, work), daemon=True) for kind, work in kinds.items()
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(WITHIN_S)

    def more(self, count: int) -> None:
        """Waits for `count` more of each kind; a load that no longer gets on fails here."""
        goals = {kind: self.done[kind] + count for kind in list(self.done)}
        deadline = time.monotonic() + WITHIN_S
        while any(self.done[kind] < goal for kind, goal in goals.items()):
            assert time.monotonic() < deadline, f"load stands still: {self.done} {self.failures}"
            time.sleep(0.02)

    def _run(self, kind: str, work: Callable[[], None]) -> None:
        enter(self._network.namespace)
        while not self._stop.is_set():
            before = time.monotonic()
            try:
                work()
            except (OSError, http.client.HTTPException, AssertionError) as error:
                self.failures[f"{kind}: {type(error).__name__} {error}"[:160]] += 1
            self.done[kind] += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - before)
            time.sleep(self._pause_s)

    def _kept(self) -> None:
        connection = http.client.HTTPConnection(*self._target, timeout=TIMEOUT_S)
        try:
            for _ in range(20):
                if self._stop.is_set():
                    break
                _get(connection)
                time.sleep(self._pause_s)
                self.done["kept"] += 1
        finally:
            connection.close()

    def _fresh(self) -> None:
        connection = http.client.HTTPConnection(*self._target, timeout=TIMEOUT_S)
        try:
            _get(connection)
        finally:
            connection.close()

    def _tcp(self) -> None:
        with socket.create_connection((self._target[0], self._tcp_port or 0), timeout=TIMEOUT_S) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.sendall(b"ping")
            assert connection.recv(10) == b"ping", "connection closed"


def _get(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", "/")
    response = connection.getresponse()
    body = response.read()
    assert response.status == 200, f"status {response.status} {body[:80]!r}"
