"""Which of its causes `tls_failed` had, for the entries of a tap.

One proxy alone cannot tell. What the proxies of both ends counted can (telemetry.reasons), so they are asked, as `stat`
does and with the same right (`get` on `pods/proxy`). Without it, or an answer, an entry stays as it came.
"""

import re
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from discovery.entries import Entry
from kube.client import Api
from kube.errors import ApiError, ForbiddenError
from mesh import names
from mesh.reasons import Plaintext
from telemetry.causes import FILTER, samples_of
from telemetry.reasons import Attempts, Sample, attempts, cluster_label, own_fault, refine, turned_away

# Seconds for which an answer is good, and how many proxies are asked within them at most: entries wait meanwhile.
AGAIN_S: Final = 10.0
MOST: Final = 32
_TIMEOUT_S: Final = 2.0
_POD: Final = re.compile(r"([a-z0-9-]+)/([a-z0-9.-]+)", re.ASCII)


class Causes:
    """Of one tap. `clock` is seconds that only grow."""

    def __init__(self, api: Api, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._api, self._clock = api, clock
        self._allowed = True
        self._known: dict[str, tuple[float, Sequence[Sample]]] = {}

    async def explain(self, entry: Entry) -> Entry:
        """The entry, with the cause as its reason where that is known."""
        if entry.reason != Plaintext.TLS_FAILED:
            return entry
        cause = await (self._of_caller(entry) if entry.direction == "inbound" else self._of_failure(entry))
        return msgspec.structs.replace(entry, reason=cause.value) if cause else entry

    async def _of_caller(self, entry: Entry) -> Plaintext | None:
        """The server's proxy saw a meshed client in plaintext: that of one which was never configured, mostly."""
        samples = await self._samples(entry.source.pod)
        # Every proxy of ours has counted something of these.
        return own_fault(samples) if samples else None

    async def _of_failure(self, entry: Entry) -> Plaintext:
        tried = attempts(await self._samples(entry.reporter))
        dialled = cluster_label(entry.destination.service or f"pod/{entry.destination.address}")
        server = await self._samples(entry.destination.pod)
        return refine(tried.get(dialled, Attempts()), server_without_identity=turned_away(server))

    async def _samples(self, pod: str) -> Sequence[Sample]:
        """What its proxy counted since its start; nothing where that cannot be had."""
        now = self._clock()
        self._known = {key: known for key, known in self._known.items() if known[0] > now}
        if pod in self._known:
            return self._known[pod][1]
        found = _POD.fullmatch(pod)
        if not found or not self._allowed or len(self._known) >= MOST:
            return ()
        path = f"/api/v1/namespaces/{found[1]}/pods/{found[2]}:{names.STATUS_PORT}/proxy/metrics"
        samples: Sequence[Sample] = ()
        try:
            samples = samples_of(
                await self._api.request("GET", path, query=(("filter", FILTER),), timeout_s=_TIMEOUT_S)
            )
        except ForbiddenError:
            self._allowed = False
        except ApiError:
            pass  # it has gone, or is too busy: asked again later
        self._known[pod] = (now + AGAIN_S, samples)
        return samples
