"""Every resource that any proxy may be sent, ready to send, and the part of it that one proxy sees."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from discovery import pins
from discovery.clusters import build_cluster
from discovery.endpoints import build_endpoints
from discovery.listeners import build_listener
from discovery.pins import Pins
from discovery.resources import CLUSTER, ENDPOINTS, LISTENER, Resource, resource
from discovery.scope import EVERYBODY, EVERYTHING, Reach
from discovery.snapshot import PortPlan
from discovery.tls import Mode
from discovery.world import Planned

Resources = Mapping[str, Mapping[str, Resource]]
_TYPES: Final = (CLUSTER, ENDPOINTS, LISTENER)
_NO_TABLE: Final[Mapping[str, Resource]] = {}
_NOTHING: Final[Resources] = {}


@dataclass(frozen=True, slots=True)
class Change:
    """One resource of one mode is new, other or (`after` None) gone."""

    mode: Mode
    type_url: str
    name: str
    before: Resource | None
    after: Resource | None


class View:
    """What proxies of one mode and one reach are sent: tables that all such views share, and entries of its own."""

    def __init__(self, mode: Mode, reach: Reach, shared: Resources, everything: Resources) -> None:
        self.mode, self.reach = mode, reach
        self._shared = shared
        self._own: dict[str, dict[str, Resource]] = {type_url: {} for type_url in _TYPES}
        if shared is not everything:
            for type_url, table in everything.items():
                self._own[type_url] = {name: entry for name, entry in table.items() if self._is_own(entry)}

    def _is_own(self, entry: Resource) -> bool:
        if self.reach.entries is None and (not self.reach.home or EVERYBODY in entry.owners):
            return False
        return self.reach.covers(entry.owners)

    def get(self, type_url: str, name: str) -> Resource | None:
        return self._shared.get(type_url, _NO_TABLE).get(name) or self._own.get(type_url, _NO_TABLE).get(name)

    def names(self, type_url: str) -> Iterable[str]:
        return [*self._shared.get(type_url, _NO_TABLE), *self._own.get(type_url, _NO_TABLE)]

    def take(self, changes: Sequence[Change]) -> list[tuple[str, str]]:
        """Follows the catalog; gives the (type, name) pairs that are another thing now for these proxies."""
        mine: list[tuple[str, str]] = []
        for change in changes:
            if change.mode is not self.mode:
                continue
            if not any(self.reach.covers(entry.owners) for entry in (change.before, change.after) if entry):
                continue
            mine.append((change.type_url, change.name))
            own = self._own[change.type_url]
            if change.after and self._is_own(change.after):
                own[change.name] = change.after
            else:
                own.pop(change.name, None)
        return mine


class Catalog:
    """Turns plans into resources, and says what changed. `now` everywhere is seconds that only grow."""

    def __init__(self) -> None:
        self._tables: dict[Mode, dict[str, dict[str, Resource]]] = {
            mode: {type_url: {} for type_url in _TYPES} for mode in Mode
        }
        # The part that is for everybody.
        self._common: dict[Mode, dict[str, dict[str, Resource]]] = {
            mode: {type_url: {} for type_url in _TYPES} for mode in Mode
        }
        self._plans: dict[str, PortPlan] = {}
        self._owned: dict[str, frozenset[str]] = {}
        self._pins: dict[str, Pins] = {}
        self._due: dict[str, float] = {}

    def view(self, mode: Mode, reach: Reach = EVERYTHING) -> View:
        everything = self._tables[mode]
        if reach.entries is not None:
            return View(mode, reach, _NOTHING, everything)
        return View(mode, reach, self._common[mode] if reach.home else everything, everything)

    @property
    def next_due(self) -> float | None:
        """When `due` will have something to do."""
        return min(self._due.values(), default=None)

    def size(self) -> dict[str, int]:
        return {type_url: len(table) for type_url, table in self._tables[Mode.OPTIONAL].items()}

    def take(self, planned: Planned, now: float) -> list[Change]:
        """Configures what `planned` says for its owner and takes away what it no longer says.

        A Service comes in with its first meshed endpoint and then stays while it exists: going back and forth between
        a listener and none would cut its connections each time its last meshed pod restarts.
        """
        changes: list[Change] = []
        wanted = {plan.name: plan for plan in planned.ports if plan.identities or plan.name in self._plans}
        for name in self._owned.get(planned.owner, frozenset()) - wanted.keys():
            changes.extend(self._remove(name))
        for plan in wanted.values():
            changes.extend(self._configure(plan, now))
        if wanted:
            self._owned[planned.owner] = frozenset(wanted)
        else:
            self._owned.pop(planned.owner, None)
        return changes

    def due(self, now: float) -> list[Change]:
        """What time alone changes: endpoints that may follow their identity, identities that leave."""
        changes: list[Change] = []
        for name in [name for name, at in self._due.items() if at <= now]:
            changes.extend(self._configure(self._plans[name], now))
        return changes

    def _configure(self, plan: PortPlan, now: float) -> list[Change]:
        name, present = plan.name, plan.identities
        pinned = pins.update(self._pins.get(name, pins.NO_PINS), present, now)
        self._plans[name], self._pins[name] = plan, pinned
        self._due.pop(name, None)
        if (at := pins.next_change(pinned, present, now)) is not None:
            self._due[name] = at
        usable = pins.usable(pinned, now)
        listener = resource(
            LISTENER, name, build_listener(name, plan.address, plan.port, name, plan.protocol), plan.owners
        )
        changes: list[Change] = []
        for mode in Mode:
            built = (
                resource(CLUSTER, name, build_cluster(name, pinned, mode, plan.protocol), plan.owners),
                resource(ENDPOINTS, name, build_endpoints(name, plan.endpoints, mode, usable), plan.owners),
                listener,
            )
            changes.extend(change for entry in built if (change := self._put(mode, entry)))
        return changes

    def _put(self, mode: Mode, entry: Resource) -> Change | None:
        table = self._tables[mode][entry.type_url]
        before = table.get(entry.name)
        if before and (before.version, before.owners) == (entry.version, entry.owners):
            return None
        table[entry.name] = entry
        if EVERYBODY in entry.owners:
            self._common[mode][entry.type_url][entry.name] = entry
        else:
            self._common[mode][entry.type_url].pop(entry.name, None)
        return Change(mode, entry.type_url, entry.name, before, entry)

    def _remove(self, name: str) -> list[Change]:
        self._plans.pop(name, None)
        self._pins.pop(name, None)
        self._due.pop(name, None)
        changes: list[Change] = []
        for mode in Mode:
            for type_url in _TYPES:
                self._common[mode][type_url].pop(name, None)
                if before := self._tables[mode][type_url].pop(name, None):
                    changes.append(Change(mode, type_url, name, before, None))
        return changes
