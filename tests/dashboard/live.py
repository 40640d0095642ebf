"""The whole dashboard in this process: proxies, observer, pages and front, in a loop of its own thread.

Only the API server and the port-forward are missing. Started once for a module of tests; `do` runs in the loop.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import uvicorn
from aiohttp import web

from cli.front import Event, Front
from dashboard.app import build_app
from dashboard.model import Checked, Found, Snapshot
from dashboard.observer import Observer
from kube.errors import UnreachableError
from mesh.config import MeshConfig
from tests.dashboard import fleet
from tests.fakes.kubeapi import FakeApi

T = TypeVar("T")
KEY = "the-key-of-the-test"
DOWNGRADED = Found(
    "warn",
    "shop/deployment/checkout",
    "reached data/statefulset/postgres in plaintext: <b>unreachable</b>",
    "look at the NetworkPolicy",
)
CHECKS = [
    Checked("Control plane", "webhook-ready", "the webhook is up", "ok", "2 of 2 replicas"),
    Checked("Control plane", "ca-leader", "one CA leads", "fail", "no replica leads", "kubectl -n autotls get lease"),
    Checked(
        "Data plane", "plaintext-to-meshed", "no meshed peer is reached in plaintext", "warn", "1 edge",
        findings=(DOWNGRADED,),
    ),
]  # fmt: skip


class Backend:
    """cli.front.Backend to the page server of this process; `gone` makes it a pod that is not there."""

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}"
        self.gone = False
        self.reason = ""

    async def address(self) -> str:
        if self.gone:
            raise UnreachableError("PortForward", "no pod of the dashboard is ready in namespace autotls")
        return self._address

    async def failed(self, address: str) -> None:
        pass


class Live:
    def __init__(self, mesh: fleet.Fleet, *, interval_s: float, snapshot: Snapshot | None = None) -> None:
        self.mesh, self._fixed = mesh, snapshot
        self.taps_open = 0
        self.entries: list[dict[str, Any]] = []
        self.checks = CHECKS
        self.loop = asyncio.new_event_loop()
        self._interval_s = interval_s
        self._ready = threading.Event()
        self._failed: BaseException | None = None

    # From the test's thread

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.front.port}"

    def do(self, action: Callable[[], T]) -> T:
        async def run() -> T:
            return action()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(120)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="live", daemon=True)
        self._thread.start()
        if not self._ready.wait(300) or self._failed:
            raise RuntimeError("the dashboard did not start") from self._failed

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(120)

    # In the loop's thread

    def _run(self) -> None:
        try:
            self.loop.run_until_complete(self._serve())
        except BaseException as error:
            self._failed = error
            self._ready.set()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        api = FakeApi()
        api.seed(*self.mesh.manifests())
        self.observer = Observer(
            MeshConfig(), "autotls", date=_now, target=self.mesh.target, interval_s=self._interval_s
        )
        self.observer.mirror(api)
        pages = socket.create_server(("127.0.0.1", 0))
        app = build_app(lambda: self._fixed or self.observer.snapshot, _now)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self.backend = Backend(pages.getsockname()[1])
        self.front = Front(self.backend, key=KEY, tap=self._tap, check=self._check, now=_now)
        runner = web.AppRunner(self.front.application(), handler_cancellation=True, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.front.port = runner.addresses[0][1]
        async with self.mesh.answering(), asyncio.TaskGroup() as group:
            serving = group.create_task(server._serve([pages]), name="pages")  # without its signal handlers
            observing = group.create_task(self.observer.run(), name="observer")
            # Neither tells when.
            while not (server.started and (self._fixed or self.observer.snapshot.window_s)):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            self._ready.set()
            await self._stop.wait()
            await runner.cleanup()
            observing.cancel()
            server.should_exit = True
            await serving

    async def _check(self) -> list[Checked]:
        return self.checks

    async def _tap(self, query: Mapping[str, str]) -> AsyncGenerator[Event, None]:
        """Every entry of the test's, then one every tenth of a second."""
        self.taps_open += 1
        self.query = dict(query)
        try:
            for entry in self.entries:
                yield "entry", json.dumps(entry)
            while True:
                await asyncio.sleep(0.1)
                yield "entry", json.dumps(entry_of(path="/steady"))
        finally:
            self.taps_open -= 1


def entry_of(**changes: Any) -> dict[str, Any]:
    values = {
        "time": "12:00:00.123",
        "direction": "inbound",
        "source": "shop/deployment/web",
        "destination": "shop/deployment/cart",
        "request": f"GET cart{changes.pop('path', '/')}",
        "status": "200",
        "latency": "1.4ms",
        "bytes": "1.2kB",
        "tls": "true",
        "secure": True,
        "peer": "spiffe://cluster.local/ns/shop/sa/web",
    }
    return values | changes


def _now() -> datetime:
    return datetime.now(UTC)


@contextmanager
def started(
    pods: list[fleet.FakePod], *, interval_s: float = 0.5, snapshot: Snapshot | None = None
) -> Generator[Live, None, None]:
    """A running dashboard over these pods, or one that shows that snapshot for ever."""
    live = Live(fleet.Fleet(pods, time.monotonic), interval_s=interval_s, snapshot=snapshot)
    live.start()
    try:
        yield live
    finally:
        live.stop()
