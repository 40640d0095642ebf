"""A small cluster in memory that feeds a State or a World by its object keys, as the reflectors do."""

from __future__ import annotations

from discovery.catalog import Catalog, Change
from discovery.kinds import EndpointSlice, Service
from discovery.world import World
from mesh.pod import Namespace, Pod
from tests.discovery.objects import CONFIG


def put(world: World, *objects: Pod | Service | EndpointSlice | Namespace) -> None:
    for entry in objects:
        metadata = entry.metadata
        key = f"{metadata.namespace}/{metadata.name}"
        match entry:
            case Pod():
                world.set_pod(key, entry)
            case Service():
                world.set_service(key, entry)
            case EndpointSlice():
                world.set_slice(key, entry)
            case Namespace():
                world.set_namespace(metadata.name, entry)


class Mesh:
    """World and catalog together, worked off at once. `now` moves only when told."""

    def __init__(self) -> None:
        self.world, self.catalog, self.now = World(CONFIG), Catalog(), 0.0

    def put(self, *objects: Pod | Service | EndpointSlice | Namespace) -> list[Change]:
        put(self.world, *objects)
        return self.work()

    def work(self) -> list[Change]:
        changes: list[Change] = []
        while self.world.stale:
            for planned in self.world.step(5):
                changes += self.catalog.take(planned, self.now)
        return changes

    def later(self, seconds: float) -> list[Change]:
        self.now += seconds
        return self.catalog.due(self.now)
