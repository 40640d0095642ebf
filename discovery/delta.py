"""What one proxy has, and what it must be told: the delta protocol of xDS without any network.

Source: envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol (incremental xDS). `now` is seconds that only grow.
"""

from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from discovery.pins import LINGER_S
from discovery.requests import Request
from discovery.resources import (
    CLUSTER,
    ENDPOINTS,
    LINGERING_TYPES,
    LISTENER,
    PUSH_ORDER,
    WILDCARD_TYPES,
    Resource,
    parted,
    response,
)
from discovery.tables import EMPTY, TABLES, Table

_WILDCARD: Final = "*"
_NO_RESOURCES: Final[Mapping[tuple[str, str], Resource]] = {}


class Sees(Protocol):
    """The shared part of what a proxy is sent: a View of the catalog."""

    def get(self, type_url: str, name: str) -> Resource | None: ...
    def names(self, type_url: str) -> Iterable[str]: ...


class Subscriber:
    """One stream. `own` are resources that only this proxy has, by (type, name)."""

    def __init__(self, view: Sees, own: Mapping[tuple[str, str], Resource] = _NO_RESOURCES) -> None:
        self._view, self._own = view, own
        self._wildcard: set[str] = set()
        # Type → name → version; what the proxy holds as far as we know. An empty version: asked for by name, not held.
        self._sent: dict[str, Table] = {}
        self._leaving: dict[tuple[str, str], float] = {}
        # Clusters the proxy had and was sent anew: it needs their endpoints once more (see _repeat_endpoints).
        self._warming: set[str] = set()
        # Listeners that wait until the proxy has the endpoints of their cluster.
        self._held: set[str] = set()
        self._nonce = 0

    @property
    def next_due(self) -> float | None:
        return min(self._leaving.values(), default=None)

    def knows(self, type_url: str) -> bool:
        """True once the proxy has asked for resources of that type."""
        return type_url in self._sent

    def on_request(self, request: Request, now: float) -> list[bytes]:
        """The answers to a request; none to an acknowledgement."""
        type_url = request.type_url
        first = type_url not in self._sent
        added = self._subscribe(request)
        candidates = set(added)
        if first:
            candidates |= self._sent[type_url].keys()
            if type_url in self._wildcard:
                candidates.update(self._everything(type_url))
            if type_url == ENDPOINTS:
                # Forgotten, so that they are sent again: see _repeat_endpoints.
                self._note(ENDPOINTS, dict.fromkeys(self._warming & self._sent[ENDPOINTS].keys(), ""))
                self._warming.clear()
        sent = self._sent[type_url]
        unknown = [name for name in added if not sent[name] and self._get(type_url, name) is None]
        updates: dict[str, list[Resource]] = {}
        updates[type_url], removals = self._differences(type_url, candidates, now)
        self._repeat_endpoints(updates)
        messages = self._send(type_url, updates.pop(type_url), removals + unknown)
        if more := updates.get(ENDPOINTS):
            messages += self._send(ENDPOINTS, more, [])
        messages += self._released(now)
        if first:
            self._sent[type_url] = TABLES.shared(self._sent[type_url])
        if first and not messages and type_url in self._wildcard and not (type_url == LISTENER and self._held):
            # An answer, if an empty one, ends the proxy's wait for its first configuration.
            messages = [self._message(type_url, [], [])]
        return messages

    def _subscribe(self, request: Request) -> set[str]:
        """Takes down what the proxy wants and has; gives the names it asks for now."""
        type_url = request.type_url
        first = type_url not in self._sent
        if first:
            self._sent[type_url] = TABLES.shared(request.versions) if request.versions else EMPTY
        added, dropped = set(request.subscribe), set(request.unsubscribe)
        if _WILDCARD in added or (first and not added and type_url in WILDCARD_TYPES):
            self._wildcard.add(type_url)
        if _WILDCARD in dropped:
            self._wildcard.discard(type_url)
        added.discard(_WILDCARD)
        sent = self._sent[type_url]
        changes: dict[str, str | None] = {name: "" for name in added if name not in sent}
        changes.update((name, None) for name in dropped if name in sent)
        self._note(type_url, changes)
        for name in dropped:
            self._leaving.pop((type_url, name), None)
        return added

    def _note(self, type_url: str, changes: Mapping[str, str | None]) -> None:
        """The proxy's table of that type, changed."""
        self._sent[type_url] = TABLES.after(self._sent[type_url], changes)

    def on_change(self, changed: Iterable[tuple[str, str]], now: float) -> list[bytes]:
        """The messages after these (type, name) pairs have changed: additions first, removals last."""
        by_type: dict[str, set[str]] = {}
        for type_url, name in changed:
            by_type.setdefault(type_url, set()).add(name)
        updates: dict[str, list[Resource]] = {}
        removals: dict[str, list[str]] = {}
        for type_url, names in by_type.items():
            if type_url in self._sent:
                updates[type_url], removals[type_url] = self._differences(type_url, names, now)
        self._repeat_endpoints(updates)
        messages: list[bytes] = []
        for type_url in PUSH_ORDER:
            messages += self._send(type_url, updates.get(type_url, []), [])
        messages += self._released(now)
        for type_url in (LISTENER, *LINGERING_TYPES):
            messages += self._send(type_url, [], removals.get(type_url, []))
        return messages

    def on_view(self, view: Sees, own: Mapping[tuple[str, str], Resource], now: float) -> list[bytes]:
        """The messages after the proxy's mode, reach or own resources have changed."""
        before, self._view, self._own = self._own, view, own
        changed = {*before.keys(), *own.keys()}
        for type_url, sent in self._sent.items():
            names = set(sent)
            if type_url in self._wildcard:
                names.update(self._everything(type_url))
            changed.update((type_url, name) for name in names)
        return self.on_change(changed, now)

    def on_own(self, own: Mapping[tuple[str, str], Resource], now: float) -> list[bytes]:
        """The messages after only the proxy's own resources have changed."""
        before, self._own = self._own, own
        return self.on_change([key for key in {*before, *own} if before.get(key) is not own.get(key)], now)

    def on_time(self, now: float) -> list[bytes]:
        """The removals that are due; `next_due` says when to ask."""
        due: dict[str, list[str]] = {}
        for (type_url, name), at in list(self._leaving.items()):
            if at <= now:
                del self._leaving[type_url, name]
                self._note(type_url, {name: self._forgotten(type_url)})
                due.setdefault(type_url, []).append(name)
        # A cluster's endpoints go with it.
        return self._send(CLUSTER, [], due.get(CLUSTER, [])) + self._send(ENDPOINTS, [], due.get(ENDPOINTS, []))

    def _get(self, type_url: str, name: str) -> Resource | None:
        return self._own.get((type_url, name)) or self._view.get(type_url, name)

    def _everything(self, type_url: str) -> Iterable[str]:
        yield from self._view.names(type_url)
        yield from (name for kind, name in self._own if kind == type_url)

    def _differences(self, type_url: str, names: Iterable[str], now: float) -> tuple[list[Resource], list[str]]:
        sent = self._sent[type_url]
        updates: list[Resource] = []
        removals: list[str] = []
        changes: dict[str, str | None] = {}
        for name in names:
            entry = self._get(type_url, name)
            if type_url == LISTENER and entry is not None and self._must_wait(name):
                self._held.add(name)
            elif entry is not None:
                self._leaving.pop((type_url, name), None)
                wanted = type_url in self._wildcard or name in sent
                if wanted and sent.get(name) != entry.version:
                    if type_url == CLUSTER and sent.get(name):
                        self._warming.add(name)
                    updates.append(entry)
                    changes[entry.name] = entry.version
            elif sent.get(name):
                if type_url in LINGERING_TYPES:
                    self._leaving.setdefault((type_url, name), now + LINGER_S)
                else:
                    changes[name] = self._forgotten(type_url)
                    removals.append(name)
        self._note(type_url, changes)
        return updates, removals

    def _forgotten(self, type_url: str) -> str | None:
        """What the table says of a name that the proxy no longer holds; what it asked for by name stays asked for."""
        return None if type_url in self._wildcard else ""

    def _must_wait(self, listener: str) -> bool:
        """True while the proxy has not been given the endpoints of the cluster that the listener is named after.

        A new cluster is used only once it has endpoints, which the proxy asks for in its own time; a listener that
        came before would answer 503 or close the connection.
        """
        if CLUSTER not in self._sent or self._get(CLUSTER, listener) is None:
            return False
        return not self._sent.get(ENDPOINTS, EMPTY).get(listener)

    def _released(self, now: float) -> list[bytes]:
        """The listeners that need not wait any longer."""
        ready = {name for name in self._held if not self._must_wait(name)}
        if not ready:
            return []
        self._held -= ready
        updates, removals = self._differences(LISTENER, ready, now)
        return self._send(LISTENER, updates, removals)

    def _repeat_endpoints(self, updates: dict[str, list[Resource]]) -> None:
        """Endpoints again for every cluster that the proxy had and is sent anew, changed or not.

        Envoy warms the changed cluster until it is given endpoints, but does not ask for names it subscribed to
        before; without an answer it would go on with none after `initial_fetch_timeout`.
        """
        known = self._sent.get(ENDPOINTS)
        if known is None or not self._warming:
            return
        changes: dict[str, str | None] = {}
        listed = {entry.name for entry in updates.get(ENDPOINTS, [])}
        for name in self._warming - listed:
            if known.get(name) and (entry := self._get(ENDPOINTS, name)):
                changes[name] = entry.version
                updates.setdefault(ENDPOINTS, []).append(entry)
        self._note(ENDPOINTS, changes)
        self._warming.clear()

    def _send(self, type_url: str, updates: list[Resource], removals: list[str]) -> list[bytes]:
        if not updates and not removals:
            return []
        *first, last = parted(updates)
        return [*(self._message(type_url, part, []) for part in first), self._message(type_url, last, removals)]

    def _message(self, type_url: str, updates: list[Resource], removed: list[str]) -> bytes:
        self._nonce += 1
        return response(type_url, str(self._nonce), updates, removed)
