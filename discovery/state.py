"""The living cluster: four reflectors feed the world, one task turns what is stale into changes for the streams."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

from discovery.catalog import Catalog, Change, View
from discovery.kinds import ENDPOINT_SLICES, SERVICES, EndpointSlice, Service
from discovery.metrics import CHANGES, OBJECTS, RESOURCES, STALE, UNSUPPORTED, short
from discovery.scope import Reach
from discovery.tls import Mode
from discovery.world import World
from kube.client import Api
from kube.kinds import NAMESPACES, PODS
from kube.reflector import Reflector
from mesh.config import MeshConfig
from mesh.pod import Namespace, Pod

# Objects worked off before other tasks get a turn; one takes up to 2 ms.
BATCH: Final = 8
# Seconds between two rounds of pushing: a rolling Deployment changes several objects at once.
ROUND_S: Final = 0.02

# Called after each round with the changed resources and the keys of pods whose own view may have changed.
Publish = Callable[[Sequence[Change], Sequence[str]], None]
T = TypeVar("T")


def _nobody(_changes: Sequence[Change], _pods: Sequence[str]) -> None:
    pass


class State:
    """One per process. `publish` may be set once the streams exist."""

    def __init__(self, config: MeshConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.world = World(config)
        self.catalog = Catalog()
        self.publish: Publish = _nobody
        self._clock = clock
        self._views: WeakValueDictionary[tuple[Mode, Reach], View] = WeakValueDictionary()
        self._stale = asyncio.Event()
        self._worked = asyncio.Event()
        self.reflectors: tuple[Reflector[Any], ...] = ()

    def mirror(self, api: Api) -> None:
        """Prepares the reflectors; `run_reflectors` keeps them going."""
        world = self.world
        self.reflectors = (
            Reflector(api, NAMESPACES, Namespace, on_change=self._noting(world.set_namespace)),
            Reflector(api, SERVICES, Service, on_change=self._noting(world.set_service)),
            Reflector(api, ENDPOINT_SLICES, EndpointSlice, on_change=self._noting(world.set_slice)),
            Reflector(api, PODS, Pod, on_change=self._noting(world.set_pod)),
        )

    def _noting(self, take: Callable[[str, T | None], None]) -> Callable[[str, T | None], None]:
        def noted(key: str, found: T | None) -> None:
            take(key, found)
            self._stale.set()

        return noted

    def note(self) -> None:
        """The world was changed by somebody else than a reflector."""
        self._stale.set()

    @property
    def synced(self) -> bool:
        """True once every object is known and worked off: an answer before that would take configuration away."""
        return all(reflector.synced.is_set() for reflector in self.reflectors) and not self.world.stale

    async def until_synced(self) -> None:
        for reflector in self.reflectors:
            await reflector.synced.wait()
        while self.world.stale:
            await self.worked()

    async def worked(self) -> None:
        """Returns after the next round."""
        await self._worked.wait()

    async def run_reflectors(self) -> None:
        """For ever; cancel to stop."""
        async with asyncio.TaskGroup() as group:
            for reflector in self.reflectors:
                group.create_task(reflector.run(), name="reflector")

    async def run(self) -> None:
        """For ever; cancel to stop."""
        while True:
            await self._something_to_do()
            self._stale.clear()
            await self._round()
            done, self._worked = self._worked, asyncio.Event()
            done.set()
            await asyncio.sleep(ROUND_S)

    async def _something_to_do(self) -> None:
        due = self.catalog.next_due
        if self.world.stale or (due is not None and due <= self._clock()):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if due is None else max(0.0, due - self._clock())):
                await self._stale.wait()

    async def _round(self) -> None:
        """Works off everything stale, publishing batch by batch so that the first proxies need not wait for the last
        object."""
        self._publish(self.catalog.due(self._clock()))
        while self.world.stale:
            changes = [
                change for planned in self.world.step(BATCH) for change in self.catalog.take(planned, self._clock())
            ]
            self._publish(changes)
            await asyncio.sleep(0)
        self._measure()

    def _publish(self, changes: list[Change]) -> None:
        pods = list(self.world.changed_facts)
        self.world.changed_facts.clear()
        for change in changes:
            CHANGES.labels(short(change.type_url)).inc()
        if changes or pods:
            self.publish(changes, pods)

    def _measure(self) -> None:
        STALE.set(self.world.stale)
        for kind, count in self.world.counts().items():
            OBJECTS.labels(kind).set(count)
        for type_url, count in self.catalog.size().items():
            RESOURCES.labels(short(type_url)).set(count)
        UNSUPPORTED.clear()
        for key, reason in self.world.unsupported():
            namespace, _, name = key.partition("/")
            UNSUPPORTED.labels(namespace, name, reason.value).set(1)

    def view(self, mode: Mode, reach: Reach) -> View:
        """The shared view of proxies of that mode and reach; it lives as long as somebody holds it."""
        found = self._views.get((mode, reach))
        if found is None:
            found = self._views[mode, reach] = self.catalog.view(mode, reach)
        return found

    def views(self) -> list[View]:
        """Those in use."""
        return list(self._views.values())
