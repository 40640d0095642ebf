"""Meshed peers that were reached in plaintext: whom the proxies tell of, and when that is worth an Event.

A consumer of the sink; discovery.loggers says what proxies tell. What a proxy tells is believed of itself alone, and
the peer is looked up by its address: a pod can raise an Event about itself, and no other. Pure but for its own state.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from discovery.accesslog import Record
from discovery.naming import host_of
from discovery.snapshot import PodFacts
from mesh.reasons import Plaintext

# One Event for a pair in so many seconds; so long it also counts as going on.
AGAIN_S: Final = 600.0
# After a message that was read, the next ones of that pod are not for so long: they mostly say the same.
REST_S: Final = 5.0
# Characters of Envoy's word that are repeated.
MAX_FAILURE: Final = 160
# Pairs that are remembered; what is beyond is forgotten until one of them ends.
MAX_PAIRS: Final = 2000


class Pods(Protocol):
    """What is known about pods: discovery.world.World."""

    def pod_at(self, address: str) -> PodFacts | None: ...


@dataclass(frozen=True, slots=True)
class Fallback:
    """That `client` reached `server`, a workload with a sidecar, in plaintext. `failure` is Envoy's word, or empty."""

    client: PodFacts
    server: str
    failure: str

    @property
    def message(self) -> str:
        """One sentence for the Event: whom, why, what to do. The same words each time, so that it is counted."""
        why = f" ({self.failure})" if self.failure else ""
        return (
            f"Plaintext to {self.server}, which has a sidecar: mutual TLS failed{why} and optional mode went on "
            f"without. `autotls check` names the cause; it is tried again within a minute."
        )


@dataclass(slots=True)
class _Pair:
    client: str
    server: str
    seen_at: float
    said_at: float


class Fallbacks:
    """`say` is called for what has not been said for AGAIN_S; `clock` is seconds that only grow."""

    def __init__(self, pods: Pods, say: Callable[[Fallback], None], clock: Callable[[], float]) -> None:
        self._pods, self._say, self._clock = pods, say, clock
        self._pairs: dict[tuple[str, str], _Pair] = {}
        self._rest_until: dict[str, float] = {}

    def wants(self, pod: PodFacts) -> bool:
        return self._clock() >= self._rest_until.get(pod.uid, 0.0)

    def take(self, pod: PodFacts, records: Sequence[Record]) -> None:
        now = self._clock()
        self._rest_until[pod.uid] = now + REST_S
        for record in records:
            if record.outbound and not record.tls and record.reason == Plaintext.TLS_FAILED:
                server = self._pods.pod_at(host_of(record.upstream))
                if server and server.meshed:
                    self._note(Fallback(pod, server.workload, _readable(record.failure)), now)

    def lost(self, pod: PodFacts, entries: int) -> None:
        """More of the same."""

    def going_on(self) -> Iterable[tuple[str, str]]:
        """(client's workload, server's workload) of the last AGAIN_S; forgets the others."""
        now = self._clock()
        self._pairs = {key: pair for key, pair in self._pairs.items() if now - pair.seen_at < AGAIN_S}
        self._rest_until = {uid: until for uid, until in self._rest_until.items() if until > now}
        return {(pair.client, pair.server) for pair in self._pairs.values()}

    def _note(self, found: Fallback, now: float) -> None:
        key = (found.client.uid, found.server)
        pair = self._pairs.get(key)
        if pair is None:
            if len(self._pairs) >= MAX_PAIRS:
                return
            self._pairs[key] = _Pair(found.client.workload, found.server, now, now)
            self._say(found)
            return
        pair.seen_at = now
        if now - pair.said_at >= AGAIN_S:
            pair.said_at = now
            self._say(found)


def _readable(failure: str) -> str:
    """The end of Envoy's `TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:TLS_error_end`.

    It is the proxy's to fill, so it is made harmless to print, and short.
    """
    words = failure.rpartition("OPENSSL_internal:")[2].partition("TLS_error_end")[0][:MAX_FAILURE]
    return "".join(letter if letter.isprintable() else "?" for letter in words).strip(" :|")
