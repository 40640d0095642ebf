"""The open streams: who they belong to, what they have asked, and what has changed for them."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from discovery.catalog import Change, View
from discovery.delta import Subscriber
from discovery.own import own_resources
from discovery.peers import Caller, still_valid
from discovery.requests import Request
from discovery.resources import Resource
from discovery.snapshot import PodFacts
from discovery.state import State
from discovery.tls import Mode

# Requests a proxy may have waiting; Envoy acknowledges each answer with one.
_MAX_REQUESTS: Final = 1000

# How many of a million requests of a pod are to be told to the access-log sink.
Tapped = Callable[[PodFacts], int]


def nobody(_pod: PodFacts) -> int:
    """Nothing is tapped."""
    return 0


class Stream:
    """One proxy's stream. What changes while its writer is busy is gathered, so a slow proxy costs no memory."""

    def __init__(
        self, pod: PodFacts, caller: Caller, address: str, mode: Mode, state: State, *, tapped: Tapped = nobody
    ) -> None:
        self.pod_key, self.pod_uid, self.caller, self.address = pod.key, pod.uid, caller, address
        self._claims_strict = mode is Mode.STRICT
        self._state, self._tapped = state, tapped
        self.view = self._view_of(pod)
        self.subscriber = Subscriber(self.view, self._own_of(pod))
        self.requests: deque[Request] = deque()
        self.wake = asyncio.Event()
        self.ended = False
        self._changed: dict[tuple[str, str], None] = {}
        self._pod_changed = False
        self._tap_changed = False

    def _own_of(self, pod: PodFacts) -> Mapping[tuple[str, str], Resource]:
        return own_resources(self._state.world.inbound_ports(pod), tap=self._tapped(pod))

    def _view_of(self, pod: PodFacts) -> View:
        strict = pod.strict or self._claims_strict
        return self._state.view(Mode.STRICT if strict else Mode.OPTIONAL, pod.reach)

    def ask(self, request: Request) -> None:
        if len(self.requests) >= _MAX_REQUESTS:
            self.end()
        self.requests.append(request)
        self.wake.set()

    def changed(self, names: Sequence[tuple[str, str]]) -> None:
        self._changed.update((name, None) for name in names)
        self.wake.set()

    def pod_changed(self) -> None:
        self._pod_changed = True
        self.wake.set()

    def tap_changed(self) -> None:
        self._tap_changed = True
        self.wake.set()

    def end(self) -> None:
        self.ended = True
        self.wake.set()

    def news(self, now: float) -> list[bytes]:
        """The messages for everything that has changed since the last call; ends the stream of a pod that is gone."""
        messages: list[bytes] = []
        if self._pod_changed:
            self._pod_changed = False
            pod = self._state.world.pod(self.pod_key)
            if not still_valid(pod, self.caller.identity, self.pod_uid, self.address) or pod is None:
                self.end()
                return []
            self.view = self._view_of(pod)
            messages += self.subscriber.on_view(self.view, self._own_of(pod), now)
        if self._tap_changed:
            self._tap_changed = False
            if pod := self._state.world.pod(self.pod_key):
                messages += self.subscriber.on_own(self._own_of(pod), now)
        if self._changed:
            changed, self._changed = self._changed, {}
            messages += self.subscriber.on_change(changed, now)
        return messages + self.subscriber.on_time(now)


class Streams:
    """All of them; `publish` is what State calls after each round."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._by_pod: defaultdict[str, set[Stream]] = defaultdict(set)
        state.publish = self.publish

    def add(self, stream: Stream) -> None:
        self._by_pod[stream.pod_key].add(stream)

    def remove(self, stream: Stream) -> None:
        here = self._by_pod[stream.pod_key]
        here.discard(stream)
        if not here:
            del self._by_pod[stream.pod_key]

    def __iter__(self) -> Iterator[Stream]:
        for here in self._by_pod.values():
            yield from here

    def pods(self) -> Iterator[PodFacts]:
        """The pods whose proxies are connected, as they are now."""
        for key in self._by_pod:
            if pod := self._state.world.pod(key):
                yield pod

    def tap_changed(self) -> None:
        """What is tapped has changed: every proxy is told, if it matters to it."""
        for stream in self:
            stream.tap_changed()

    def publish(self, changes: Sequence[Change], pods: Sequence[str]) -> None:
        by_view = {id(view): view.take(changes) for view in self._state.views()}
        for stream in self:
            if mine := by_view.get(id(stream.view)):
                stream.changed(mine)
        for key in pods:
            for stream in self._by_pod.get(key, ()):
                stream.pod_changed()
