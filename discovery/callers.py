"""Which pod is on the other end of a connection: the edge around discovery.peers."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import grpc.aio

from discovery.errors import PeerError
from discovery.peers import Caller, authenticate, caller_of, peer_address, still_valid
from discovery.snapshot import PodFacts
from discovery.state import State
from mesh.spiffe import TrustDomain

# Seconds for which an address that no pod has yet is waited for: the kubelet reports it about a second late.
ADDRESS_S: Final = 5.0

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Peer:
    """A verified certificate and the address it came from."""

    caller: Caller
    address: str


class Callers:
    """`date` tells the time of certificates (UTC), `clock` seconds that only grow."""

    def __init__(
        self,
        state: State,
        trust_domain: TrustDomain,
        *,
        date: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state, self._trust_domain, self._date, self._clock = state, trust_domain, date, clock

    def peer_of(self, context: Context) -> Peer:
        """Raises PeerError."""
        address = peer_address(context.peer())
        (pem,) = context.auth_context().get("x509_pem_cert") or (b"",)
        return Peer(caller_of(bytes(pem), self._trust_domain), address)

    async def pod_of(self, peer: Peer, node_id: str) -> PodFacts:
        """The pod that `peer` is; waits for one whose address is not known yet. Raises PeerError."""
        deadline = self._clock() + ADDRESS_S
        while True:
            try:
                return authenticate(peer.caller.identity, peer.address, node_id, self._state.world)
            except PeerError as error:
                if not error.retry or self._clock() >= deadline:
                    raise
            try:
                async with asyncio.timeout(max(0.0, deadline - self._clock())):
                    await self._state.worked()
            except TimeoutError:
                continue

    def still(self, peer: Peer, pod: PodFacts) -> PodFacts | None:
        """`pod` as it is now; None once it, its address or its certificate is not what opened the connection."""
        now = self._state.world.pod(pod.key)
        valid = still_valid(now, peer.caller.identity, pod.uid, peer.address) and peer.caller.not_after > self._date()
        return now if valid else None
