"""Discovery in a thread of the router's network, with its cluster given by the test."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from discovery.ads import Server
from discovery.credentials import ServerCredentials
from discovery.entries import Entry, Line, Selection
from discovery.fallbacks import Fallback, Fallbacks
from discovery.kinds import EndpointSlice, Service
from discovery.state import State
from discovery.taps import Session, Taps
from mesh.pod import Pod
from mesh.spiffe import TrustDomain
from tests.discovery.certificates import now_utc
from tests.discovery.cluster import put
from tests.discovery.network import ROUTER, enter
from tests.discovery.objects import CONFIG
from tests.proxy.namespaces import WITHIN_S, Network

Object = Pod | Service | EndpointSlice


class Tap:
    """An open tap; `seen` is everything that it has told so far."""

    def __init__(self, discovery: Discovery, session: Session) -> None:
        self._discovery, self._session = discovery, session
        self._seen: list[Entry] = []

    def seen(self) -> list[Entry]:
        def drain() -> None:
            lines = self._session.lines().splitlines()
            self._seen.extend(entry for line in lines if (entry := msgspec.json.decode(line, type=Line).entry))

        self._discovery.do(drain)
        return self._seen

    def close(self) -> None:
        self._discovery.do(lambda: self._discovery.taps.close(self._session))


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
        # What the alarms would say.
        self.fallbacks: list[Fallback] = []
        self.taps: Taps
        self._server: Server

    def serves(self, pod: str) -> bool:
        """Whether the proxy of that pod (namespace/name) is connected to what runs now."""
        found: list[str] = []
        self.do(lambda: found.extend(each.key for each in self._server.streams.pods()))
        return pod in found

    def tap(self, selection: Selection) -> Tap:
        sessions: list[Session] = []
        self.do(lambda: sessions.append(self.taps.open(selection, lambda: None)))
        return Tap(self, sessions[0])

    def put(self, *objects: Object) -> None:
        """Returns when it is worked off: every stream has been told that there is news."""
        for entry in objects:
            self._objects[type(entry), f"{entry.metadata.namespace}/{entry.metadata.name}"] = entry

        async def apply(state: State) -> None:
            put(state.world, *objects)
            state.note()
            while state.world.stale:
                await state.worked()

        if self._loop and self.state:
            asyncio.run_coroutine_threadsafe(apply(self.state), self._loop).result(WITHIN_S)

    def do(self, function: Callable[[], None]) -> None:
        """Runs it in discovery's event loop."""

        async def run() -> None:
            function()

        if self._loop:
            asyncio.run_coroutine_threadsafe(run(), self._loop).result(WITHIN_S)

    def start(self, *, within_s: float = WITHIN_S) -> None:
        self._started.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(within_s)

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
        self.taps = Taps(self.state.world, time.monotonic)
        fallbacks = Fallbacks(self.state.world, self.fallbacks.append, time.monotonic)
        server = self._server = Server(
            self.state,
            TrustDomain("cluster.local"),
            credentials,
            date=now_utc,
            address=f"{ROUTER}:15110",
            consumers=(self.taps, fallbacks),
            tapped=self.taps.level,
        )
        self.taps.changed = server.streams.tap_changed
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
            self._thread.join(WITHIN_S)
            assert not self._thread.is_alive(), "discovery goes on"
        self._loop = self.state = self._thread = None
