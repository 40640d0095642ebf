"""One term of leadership: mirrors, the work queue, and what is done about each key.

The order of a term: mirror everything once, make or read root and issuer, then work on what differs. Nothing is
decided on half a picture, and nothing is lost when the term ends in the middle: the next one sees the same gaps.
"""

import asyncio
import random
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Final

import structlog

from ca import metrics
from ca.bundles import Bundles
from ca.demand import Account, Demand
from ca.edge import Edge
from ca.errors import AuthorityError, IssueError
from ca.foreign import REASON, Foreigners
from ca.identities import Identities
from ca.narrator import Narrator
from ca.queue import WorkQueue
from ca.serving import Registrations, ServingCertificates
from ca.store import BundleOf, Key, Mirror, ServingOf, Task
from ca.trust import TrustKeeper
from kube.client import Api
from kube.errors import (
    ApiError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotLeaderError,
    TooManyRequestsError,
    UnreachableError,
)
from kube.events import Recorder, Regarding
from mesh.config import MeshConfig
from mesh.errors import AutotlsError
from mesh.pod import ObjectMeta, Pod

COMPONENT: Final = "autotls.io/ca"
# Enough to hide the latency of the API server, few enough not to crowd out others (priority and fairness gives
# a service account's flow about this many seats).
WORKERS: Final = 16
# A namespace that is going away or whose quota is full: a fact to report, not to storm against.
REFUSED_RETRY: Final = timedelta(minutes=5)
_GAUGES_EVERY_S: Final = 5.0

_API_VERSIONS: Final = {"MutatingWebhookConfiguration": "admissionregistration.k8s.io/v1"}
_log: Final = structlog.get_logger("ca")


def utc_now() -> datetime:
    return datetime.now(UTC)


class Controller:
    """The CA's work. `edge.api` is for its writes, `events_api` for Events, which need no fence."""

    def __init__(self, edge: Edge, events_api: Api, *, instance: str, jitter: Callable[[], float]) -> None:
        self._edge = edge
        self._queue: WorkQueue[Key] = WorkQueue(clock=edge.clock, jitter=jitter)
        self._recorder = Recorder(events_api, COMPONENT, instance=instance, now=edge.clock)
        self._foreigners = Foreigners(self._announce)
        self.keeper = TrustKeeper(edge, self._trust_changed)
        demand = Demand(edge.config)
        self._mirror = Mirror(
            edge,
            demand,
            add=self._queue.add,
            known=self._is_echo,
            pod_seen=self._pod_seen,
            jitter=jitter,
        )
        mirror, keeper, foreigners = self._mirror, self.keeper, self._foreigners
        self._narrator = Narrator(edge.config, mirror.namespaces, self._recorder.emit, edge.clock)
        self.identities = Identities(edge, demand, keeper, mirror.secrets, foreigners)
        self._bundles = Bundles(edge, keeper, mirror.bundles, mirror.inhabited, foreigners, going=mirror.going)
        self._serving = ServingCertificates(edge, keeper, mirror.home_secrets, foreigners)
        self._registrations = Registrations(edge, keeper, mirror.registrations, mirror.templates, foreigners)
        self._done: set[Task] = set()

    @property
    def unready(self) -> str:
        """What the installation still waits for; empty once pods can be injected and identities issued."""
        if self.keeper.trust is None:
            return self.keeper.fault or "root and issuer are not there yet"
        missing = [task.value for task in Task if task not in self._done]
        return f"not done yet: {', '.join(missing)}" if missing else ""

    async def run(self) -> None:
        """For ever; cancel to stop."""
        async with asyncio.TaskGroup() as group:
            for name, reflector in self._mirror.reflectors.items():
                group.create_task(reflector.run(), name=f"mirror-{name}")
            group.create_task(self._recorder.run(), name="events")
            group.create_task(self._gauges(), name="gauges")
            await self._mirror.synced()
            _log.info("mirrors_filled", secrets=len(self._mirror.secrets), namespaces=len(self._mirror.namespaces))
            self._queue.add(Task.TRUST)
            await self._queue.run(self._work, workers=WORKERS)

    @property
    def foreign_count(self) -> int:
        return self._foreigners.count

    def _is_echo(self, account: Account, resource_version: str) -> bool:
        return self.identities.knows(account, resource_version)

    def _pod_seen(self, key: str, pod: Pod | None) -> None:
        self._narrator.pod_changed(key, pod)

    def _trust_changed(self) -> None:
        self.identities.forget_versions()
        self._mirror.add_everything()

    async def _work(self, key: Key) -> datetime | None:
        try:
            due = await self._reconcile(key)
            if isinstance(key, Task) and self.keeper.trust is not None:
                self._done.add(key)
            return due
        except AutotlsError as error:
            return self._failed(key, error)
        except Exception:
            # One object that we do not understand must not end the work on all others. Where, and not what: the
            # text of an unknown error could quote what was being parsed.
            _log.error("work_broke", key=str(key), where=innermost_frames(sys.exc_info()[2]))
            metrics.FAILURES.labels("internal").inc()
            return self._queue.retry(key, after=REFUSED_RETRY)

    async def _reconcile(self, key: Key) -> datetime | None:
        match key:
            case Account():
                return await self.identities.reconcile(key)
            case BundleOf(namespace=namespace):
                return await self._bundles.reconcile(namespace)
            case Task.TRUST:
                return await self.keeper.keep()
            case ServingOf(secret=secret):
                return await self._serving.reconcile(secret)
            case Task.REGISTRATIONS:
                await self._registrations.reconcile()
                return None

    def _failed(self, key: Key, error: AutotlsError) -> datetime:
        reason, after = classify(error)
        due = self._queue.retry(key, after=after)
        metrics.FAILURES.labels(reason).inc()
        if reason != "conflict":
            _log.warning("work_failed", key=str(key), reason=reason, error=str(error), again_at=due.isoformat())
        return due

    def _announce(self, kind: str, metadata: ObjectMeta, text: str) -> None:
        regarding = Regarding.of(_API_VERSIONS.get(kind, "v1"), kind, metadata)
        self._recorder.emit(regarding, REASON, text, type="Warning", action="LeaveAlone")

    async def _gauges(self) -> None:
        while True:
            metrics.QUEUE_DEPTH.set(self._queue.depth)
            metrics.HELD.set(self.identities.count)
            end = self.identities.first_end
            metrics.LEAF_NOT_AFTER.set(end.timestamp() if end else 0)
            await asyncio.sleep(_GAUGES_EVERY_S)


# The word for a failure, and how long to wait where the ordinary back-off is not right; first match wins.
_FAILURES: Final[tuple[tuple[type[AutotlsError], str, timedelta | None], ...]] = (
    (ForbiddenError, "forbidden", REFUSED_RETRY),
    (InvalidError, "invalid", REFUSED_RETRY),
    (TooManyRequestsError, "too_many_requests", None),
    (ConflictError, "conflict", None),
    (UnreachableError, "unreachable", None),
    (ApiError, "api_error", None),
    (NotLeaderError, "not_leader", None),
    (AuthorityError, "authority", None),
    (IssueError, "issue", None),
)


def classify(error: AutotlsError) -> tuple[str, timedelta | None]:
    """The reason of a failure (log field, metric label) and the pause before it is tried again, if not the usual."""
    if isinstance(error, ForbiddenError) and error.namespace_terminating:
        return "namespace_terminating", REFUSED_RETRY
    if isinstance(error, ForbiddenError) and error.quota_exceeded:
        return "quota_exceeded", REFUSED_RETRY
    if isinstance(error, TooManyRequestsError) and error.retry_after_s:
        return "too_many_requests", timedelta(seconds=error.retry_after_s)
    return next(((word, after) for kind, word, after in _FAILURES if isinstance(error, kind)), ("other", None))


def innermost_frames(trace: TracebackType | None) -> list[str]:
    """`file:line function` of the last frames of a traceback."""
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)[-3:]]


def make_controller(api: Api, events_api: Api, config: MeshConfig, *, instance: str) -> Controller:
    """The controller of a real process: real clock, real randomness."""
    edge = Edge.of(api, config, utc_now)
    return Controller(edge, events_api, instance=instance, jitter=random.random)
