"""Discovery in a thread of the router's network, with its cluster given by the test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

from discovery.ads import Server
from discovery.credentials import ServerCredentials
from discovery.kinds import EndpointSlice, Service
from discovery.state import State
from mesh.pod import Pod
from mesh.spiffe import TrustDomain
from tests.discovery.certificates import now_utc
from tests.discovery.cluster import put
from tests.discovery.network import ROUTER, enter
from tests.discovery.objects import CONFIG
from tests.proxy.namespaces import Network

Object = Pod | Service | EndpointSlice


class Discovery:
    """Can be stopped and started again; each start begins with an empty cache and the objects known to the test."""

    def __init__(self, network: Network, folder: Path) -> None:
        self._network, self._folder = network, folder
        self._objects: dict[tuple[type, str], Object] = {}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started = threading.Event()
        self.state: State | None = None

    def put(self, *objects: Object) -> None:
        for entry in objects:
            self._objects[type(entry), f"{entry.metadata.namespace}/{entry.metadata.name}"] = entry

        def apply() -> None:
            if self.state:
                put(self.state.world, *objects)
                self.state.note()

        self._in_loop(apply)

    def _in_loop(self, function: Callable[[], None]) -> None:
        if self._loop is None:
            return
        done = threading.Event()

        def run() -> None:
            function()
            done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(10)

    def start(self) -> None:
        self._started.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(20)

    def _run(self) -> None:
        enter(self._network.namespace)
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self.state = State(CONFIG)
        put(self.state.world, *self._objects.values())
        credentials = ServerCredentials(self._folder)
        credentials.load()
        work = asyncio.create_task(self.state.run())
        while self.state.world.stale:
            await self.state.worked()
        server = Server(self.state, TrustDomain("cluster.local"), credentials, date=now_utc, address=f"{ROUTER}:15110")
        await server.start()
        sweep = asyncio.create_task(server.sweep())
        self._loop = asyncio.get_running_loop()
        self._started.set()
        await self._stop.wait()
        await server.stop(0)
        work.cancel()
        sweep.cancel()

    def stop(self) -> None:
        if self._loop and self._stop and self._thread:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(20)
        self._loop = self.state = self._thread = None
