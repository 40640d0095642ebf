"""Events (events.k8s.io/v1) about objects: said once, then counted.

Events are for people and may be lost; nothing here ever fails its caller. An Event's name follows from what it says
and about what, so a restarted process goes on counting where the last one stopped instead of saying it again.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec
import structlog

from kube.apply import create, merge_patch, object_path
from kube.client import Api
from kube.clock import boot_clock, micro_time, utc_now
from kube.errors import AlreadyExistsError, ApiError, NotFoundError
from kube.metrics import EVENTS
from mesh.pod import ObjectMeta, Wire

_log: Final = structlog.get_logger("kube.events")

EventType = Literal["Normal", "Warning"]

EVENTS_API: Final = "events.k8s.io/v1"
# events.k8s.io validation (pkg/apis/core/validation/events.go).
MAX_NOTE: Final = 1024
MAX_WORD: Final = 128
# What one process may write, and how often it may touch the same Event. client-go allows 25 at once for one object.
BURST: Final = 25
PER_SECOND: Final = 2.0
REPEAT_S: Final = 60.0
MAX_WAITING: Final = 1000
MAX_KNOWN: Final = 4096
WRITE_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Regarding:
    """What an Event is about. Without uid `kubectl describe` does not show it, `kubectl get events` does."""

    api_version: str
    kind: str
    name: str
    namespace: str = ""
    uid: str = ""

    @classmethod
    def of(cls, api_version: str, kind: str, metadata: ObjectMeta) -> "Regarding":
        return cls(api_version, kind, metadata.name, metadata.namespace, metadata.uid)


@dataclass(slots=True)
class _Waiting:
    regarding: Regarding
    reason: str
    message: str
    type: EventType
    action: str
    times: int = 0
    last: datetime = field(default_factory=lambda: datetime.min.replace(tzinfo=UTC))

    @property
    def namespace(self) -> str:
        # Events about cluster-scoped objects live in `default` (events.k8s.io validation).
        return self.regarding.namespace or "default"


@dataclass(slots=True)
class _Known:
    """An Event that exists: how often it was said, and when we last wrote it."""

    count: int
    written_at: float


class _Series(Wire, frozen=True):
    count: int = 1


class _Event(Wire, frozen=True):
    series: _Series | None = None


class Recorder:
    """Takes Events at any time and writes them while `run` runs.

    `component` is the reporting controller (`autotls.io/ca`), `instance` the Pod. At most MAX_WAITING different
    Events wait; what comes beyond is dropped and counted in autotls_kube_events_total.
    """

    def __init__(
        self,
        api: Api,
        component: str,
        *,
        instance: str = "",
        clock: Callable[[], float] = boot_clock,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._api, self._component, self._instance = api, component, instance or component
        self._clock, self._sleep, self._now = clock, sleep, now
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._arrived = asyncio.Event()
        self._tokens, self._counted_at = float(BURST), clock()

    def emit(
        self, regarding: Regarding, reason: str, message: str, type: EventType = "Normal", action: str = "Reconcile"
    ) -> None:
        """Says `message` about an object, soon. Never blocks, never raises."""
        name = self._name(regarding, reason, message, action)
        waiting = self._waiting.get(name)
        if waiting is None:
            if len(self._waiting) >= MAX_WAITING:
                EVENTS.labels("dropped").inc()
                return
            waiting = self._waiting[name] = _Waiting(regarding, reason[:MAX_WORD], message, type, action[:MAX_WORD])
        waiting.times += 1
        waiting.last = self._now()
        self._arrived.set()

    async def run(self) -> None:
        """Writes what was emitted, for ever; cancel to stop. What still waits then is lost."""
        while True:
            name, pause_s = self._next()
            if name is None:
                self._arrived.clear()
                try:
                    async with asyncio.timeout(pause_s):
                        await self._arrived.wait()
                except TimeoutError:
                    pass
                continue
            await self._take_token()
            await self._write(name, self._waiting.pop(name))

    def _next(self) -> tuple[str | None, float | None]:
        """The Event to write now, else how long until the first one may be written (None: nothing waits)."""
        soonest: float | None = None
        for name in self._waiting:
            known = self._known.get(name)
            left = REPEAT_S - (self._clock() - known.written_at) if known else 0.0
            if left <= 0:
                return name, None
            soonest = left if soonest is None else min(soonest, left)
        return None, soonest

    async def _take_token(self) -> None:
        now = self._clock()
        self._tokens = min(BURST, self._tokens + (now - self._counted_at) * PER_SECOND)
        self._counted_at = now
        if self._tokens < 1:
            await self._sleep((1 - self._tokens) / PER_SECOND)
        self._tokens -= 1

    async def _write(self, name: str, waiting: _Waiting) -> None:
        try:
            outcome, count = await self._create_or_count(name, waiting)
        except (ApiError, msgspec.DecodeError) as error:
            EVENTS.labels("failed").inc()
            _log.warning("event_not_written", name=name, reason=waiting.reason, error=str(error))
            return
        EVENTS.labels(outcome).inc()
        self._known[name] = _Known(count, self._clock())
        self._known.move_to_end(name)
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    async def _create_or_count(self, name: str, waiting: _Waiting) -> tuple[str, int]:
        known = self._known.get(name)
        if known is not None:
            try:
                return "repeated", await self._count(name, waiting, known.count)
            except NotFoundError:
                # Events live for an hour (kube-apiserver --event-ttl); what goes on longer is said again.
                pass
        try:
            await create(self._api, self._body(name, waiting), manager=self._component, timeout_s=WRITE_TIMEOUT_S)
        except AlreadyExistsError:
            return "repeated", await self._count(name, waiting, await self._stored_count(name, waiting))
        return "written", waiting.times

    async def _stored_count(self, name: str, waiting: _Waiting) -> int:
        path = object_path(EVENTS_API, "events", name, waiting.namespace)
        stored = msgspec.json.decode(await self._api.request("GET", path, timeout_s=WRITE_TIMEOUT_S), type=_Event)
        return stored.series.count if stored.series else 1

    async def _count(self, name: str, waiting: _Waiting, before: int) -> int:
        """Everything but the series of an Event is immutable."""
        path = object_path(EVENTS_API, "events", name, waiting.namespace)
        count = before + waiting.times
        patch = {"series": {"count": count, "lastObservedTime": micro_time(waiting.last)}}
        await merge_patch(self._api, path, patch, manager=self._component, timeout_s=WRITE_TIMEOUT_S)
        return count

    def _body(self, name: str, waiting: _Waiting) -> dict[str, Any]:
        about = waiting.regarding
        series = {"count": waiting.times, "lastObservedTime": micro_time(waiting.last)}
        return {
            "apiVersion": EVENTS_API,
            "kind": "Event",
            "metadata": {"name": name, "namespace": waiting.namespace},
            "eventTime": micro_time(waiting.last),
            "reportingController": self._component,
            "reportingInstance": self._instance[:MAX_WORD],
            "action": waiting.action,
            "reason": waiting.reason,
            "type": waiting.type,
            "note": waiting.message[:MAX_NOTE],
            "regarding": {
                "apiVersion": about.api_version,
                "kind": about.kind,
                "name": about.name,
                "namespace": about.namespace,
                "uid": about.uid,
            },
            # The API refuses a series of one (validateV1EventSeries).
            **({"series": series} if waiting.times > 1 else {}),
        }

    def _name(self, about: Regarding, reason: str, message: str, action: str) -> str:
        parts = (self._component, about.api_version, about.kind, about.namespace, about.name, about.uid)
        digest = hashlib.sha256("\0".join((*parts, reason, action, message)).encode()).hexdigest()[:16]
        return f"{about.name[:200].rstrip('.-')}.{digest}"
