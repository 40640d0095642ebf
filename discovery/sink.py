"""The access-log sink: what proxies tell about single requests and connections, handed to whoever consumes it.

Envoy's AccessLogService (envoy/service/accesslog/v3/als.proto) on the port of ADS, with the same authentication: what
arrives is said of the pod that the connection comes from, whatever the message claims.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, Protocol

import grpc
import structlog

from discovery.accesslog import Record, count, parse
from discovery.budget import Budget
from discovery.callers import Callers, Context, Peer
from discovery.errors import PeerError, RequestError
from discovery.metrics import SINK_ENTRIES, SINK_REFUSED, SINK_STREAMS
from discovery.snapshot import PodFacts

METHOD: Final = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"
# Seconds until a stream has said who it is.
FIRST_MESSAGE_S: Final = 10.0
# A stream that has nothing to say for so long is ended; Envoy opens another one for its next entry.
IDLE_S: Final = 60.0
# One proxy has a stream for each kind of logger and worker thread.
STREAMS_PER_POD: Final = 16
# Entries of a message come from a buffer of a few kilobytes (discovery/loggers.py).
MAX_MESSAGE_BYTES: Final = 1024 * 1024
# Entries a second that are read; an entry costs 20-40 us, and the same loop feeds the proxies.
ENTRIES_PER_S: Final = 4000.0

_log: Final = structlog.get_logger("discovery")


class Consumer(Protocol):
    """Who takes entries. Called in the event loop: must be quick and must not raise."""

    def wants(self, pod: PodFacts) -> bool:
        """False: the entries of this pod are not even read."""
        ...

    def take(self, pod: PodFacts, records: Sequence[Record]) -> None: ...

    def lost(self, pod: PodFacts, entries: int) -> None:
        """So many entries of this pod came faster than they may be read."""
        ...


class Sink:
    """Each of `consumers` is given all entries of the pods that it wants."""

    def __init__(
        self, callers: Callers, consumers: Sequence[Consumer], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._callers, self._consumers, self._clock = callers, consumers, clock
        self._budget = Budget(ENTRIES_PER_S, clock())
        self._open: Counter[str] = Counter()

    async def stream(self, messages: AsyncIterator[bytes], context: Context) -> bytes:
        """One stream, to its end; the empty answer says no more than that."""
        try:
            peer = self._callers.peer_of(context)
            pod = await self._callers.pod_of(peer, "")
            if self._open[pod.key] >= STREAMS_PER_POD:
                raise RequestError(f"{pod.key} has {STREAMS_PER_POD} access-log streams already")
            self._open[pod.key] += 1
        except PeerError as error:
            SINK_REFUSED.labels(error.refusal.value).inc()
            _log.warning("access_log_refused", reason=error.refusal.value, error=error.message, peer=context.peer())
            code = grpc.StatusCode.UNAVAILABLE if error.retry else grpc.StatusCode.PERMISSION_DENIED
            return await context.abort(code, error.message)
        except RequestError as error:
            return await self._reject(context, error)
        SINK_STREAMS.inc()
        try:
            await self._read(messages, peer, pod)
        except RequestError as error:
            return await self._reject(context, error)
        finally:
            SINK_STREAMS.dec()
            self._open[pod.key] -= 1
            if not self._open[pod.key]:
                del self._open[pod.key]
        return b""

    async def _reject(self, context: Context, error: RequestError) -> bytes:
        SINK_REFUSED.labels("request").inc()
        _log.warning("access_log_refused", reason="request", error=error.message, peer=context.peer())
        return await context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)

    async def _read(self, messages: AsyncIterator[bytes], peer: Peer, pod: PodFacts) -> None:
        """Until the proxy ends it, falls silent, or is not the pod any longer that it was. Raises RequestError."""
        wait_s = FIRST_MESSAGE_S
        while True:
            try:
                async with asyncio.timeout(wait_s):
                    data = await anext(messages)
            except (TimeoutError, StopAsyncIteration):
                return
            wait_s = IDLE_S
            now = self._callers.still(peer, pod)
            if now is None:
                return
            self._hand_on(now, data)

    def _hand_on(self, pod: PodFacts, data: bytes) -> None:
        """Raises RequestError."""
        interested = [consumer for consumer in self._consumers if consumer.wants(pod)]
        if not interested:
            SINK_ENTRIES.labels("unwanted").inc(count(data))
            return
        if len(data) > MAX_MESSAGE_BYTES:
            raise RequestError(f"a message of {len(data)} bytes")
        entries = count(data)
        if not self._budget.take(entries, self._clock()):
            SINK_ENTRIES.labels("lost").inc(entries)
            for consumer in interested:
                consumer.lost(pod, entries)
            return
        records = parse(data)
        SINK_ENTRIES.labels("read").inc(len(records))
        for consumer in interested:
            consumer.take(pod, records)
