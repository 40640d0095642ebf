"""Leader election on a Lease, with client-go's record and meaning (client-go tools/leaderelection).

Why two leaders never work at once, though no clock is shared:
- A leader counts from *before* it sent its last successful renewal, on its own clock. `renew_deadline` later its work
  is cancelled, whatever went wrong in between.
- A candidate counts from when it *saw* the record change, on its own clock, which is after the renewal was sent. It
  takes over no sooner than `duration` later. The times inside the record are for people; nobody compares them.
- `duration - renew_deadline` is the time the work has to end. Work that has not ended by then ends the process.
- A process that slept through its deadline wakes with its work still there: `fenced` stops its writes.

What stays possible: a write that the API server accepted just before the deadline and finishes later. Writes of the
leader must therefore be idempotent or conditional (resourceVersion, create-if-absent).
"""

import asyncio
import math
import os
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
import structlog

from kube.apply import create, object_path, replace
from kube.client import Api
from kube.clock import boot_clock, micro_time, utc_now
from kube.errors import AlreadyExistsError, ApiError, ConflictError, NotFoundError
from kube.fence import FencedApi
from kube.kinds import Lease, LeaseSpec
from kube.metrics import LEADER, LEADER_LOST
from mesh.config import ConfigError

_log: Final = structlog.get_logger("kube.lease")

# wait.JitterUntil of client-go: a candidate waits one to 2.2 retry periods, so that candidates do not march in step.
JITTER_FACTOR: Final = 1.2
LAST_TRIES_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """Seconds. Raises ConfigError unless retry period < renew deadline < duration."""

    duration_s: float = 15.0
    renew_deadline_s: float = 10.0
    retry_period_s: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.retry_period_s < self.renew_deadline_s < self.duration_s:
            raise ConfigError(
                f"lease: retry period {self.retry_period_s}s, renew deadline {self.renew_deadline_s}s and duration "
                f"{self.duration_s}s must grow in this order",
                hint="otherwise two leaders could work at once; the defaults are 2s, 10s and 15s",
            )


def _exit_process() -> None:
    # Not sys.exit: work that ignores cancellation would ignore SystemExit as well.
    os._exit(70)


class Elector:
    """One candidate. `identity` must be unique to this process (pod name and a random suffix): two processes with the
    same one would both believe to hold the Lease.

    `clock` gives seconds that only grow, `now` is for the record, `jitter` gives numbers from 0 to 1, `abort` ends the
    process when work ignores its cancellation until the Lease is over.
    """

    def __init__(  # noqa: PLR0913 - the last five are only for tests
        self,
        api: Api,
        *,
        namespace: str,
        name: str,
        identity: str,
        timing: LeaseTiming | None = None,
        clock: Callable[[], float] = boot_clock,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        now: Callable[[], datetime] = utc_now,
        jitter: Callable[[], float] = random.random,
        abort: Callable[[], None] = _exit_process,
    ) -> None:
        self._api, self._namespace, self._name, self._identity = api, namespace, name, identity
        self._timing = timing or LeaseTiming()
        self._clock, self._sleep, self._now, self._jitter, self._abort = clock, sleep, now, jitter, abort
        self._path = object_path("coordination.k8s.io/v1", "leases", name, namespace)
        # A hanging attempt must leave time for another one before the deadline.
        self._timeout_s = self._timing.renew_deadline_s / 2
        # The record as last read or written, whole, so that a PUT keeps labels and fields that we do not know.
        self._record: dict[str, Any] = {}
        self._observed = LeaseSpec()
        self._observed_at = -math.inf
        self._saw_renewal = False
        self._renewed_at = -math.inf
        self._working = False

    @property
    def is_leader(self) -> bool:
        """True while the work may act."""
        return self._working and self._clock() < self._renewed_at + self._timing.renew_deadline_s

    @property
    def holder(self) -> str:
        """Who held the Lease when it was last looked at; empty: nobody."""
        return self._observed.holder_identity or ""

    @property
    def follows_leader(self) -> bool:
        """True while somebody else holds the Lease and was seen renewing it. A record alone proves nothing: a process
        that was killed leaves one behind that looks alive for the whole of its duration."""
        return self._saw_renewal and not self._working and not self._expired()

    def lease_left_s(self) -> float:
        """Seconds until another candidate may take over, if nothing is renewed."""
        return self._renewed_at + self._timing.duration_s - self._clock()

    def fenced(self, api: Api) -> Api:
        """`api` for the leader's work: writes raise NotLeaderError while `is_leader` is False."""
        return FencedApi(api, self)

    async def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Leads, and works while leading, until `work` returns; what it raises is raised here.

        A lost Lease cancels the work and stands for election again. On cancellation, and when the work is over, the
        Lease is released after the work has ended, never before.
        """
        while True:
            await self._acquire()
            if await self._lead(work):
                return

    async def _acquire(self) -> None:
        while not await self._try():
            await self._sleep(self._timing.retry_period_s * (1 + JITTER_FACTOR * self._jitter()))

    async def _lead(self, work: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """True when the work ended by itself, False when the Lease was lost."""
        self._set_working(True)
        worker = asyncio.create_task(work(), name=f"lease {self._name}: work")
        keeper = asyncio.create_task(self._keep(), name=f"lease {self._name}: renew")
        ended = False
        try:
            await asyncio.wait({worker, keeper}, return_when=asyncio.FIRST_COMPLETED)
            ended = worker.done()
        finally:
            # The keeper goes on while the work winds down: a slow end of work must not cost it the Lease.
            await self._stop_work(worker)
            lost = keeper.done() and not keeper.cancelled()
            await _stop(keeper)
            self._set_working(False)
            if not ended:
                self._report_cut_off(worker)
            if not lost:
                await self._release()
        if ended:
            if not worker.cancelled():
                worker.result()
            return True
        cause = keeper.result()
        LEADER_LOST.labels(self._name, cause).inc()
        _log.warning("leadership_lost", lease=self._name, identity=self._identity, cause=cause, holder=self.holder)
        return False

    def _report_cut_off(self, worker: asyncio.Task[None]) -> None:
        # Work that is cut off fails in its own ways; it is over, and that is all the election needs.
        if worker.done() and not worker.cancelled() and (error := worker.exception()):
            _log.warning("work_failed_while_stopping", lease=self._name, error=repr(error))

    def _set_working(self, working: bool) -> None:
        self._working = working
        LEADER.labels(self._name).set(1 if working else 0)
        if working:
            _log.info("leadership_acquired", lease=self._name, identity=self._identity)

    async def _stop_work(self, worker: asyncio.Task[None]) -> None:
        """Cancels the work and waits for its end, at most until the Lease is over."""
        worker.cancel()
        while not worker.done():
            left = self.lease_left_s()
            if left <= 0:
                _log.critical("work_ignored_cancellation", lease=self._name, identity=self._identity)
                self._abort()
                return
            await asyncio.wait({worker}, timeout=left)

    async def _keep(self) -> str:
        """Renews until it cannot; why it could not."""
        while True:
            left = self._renewed_at + self._timing.renew_deadline_s - self._clock()
            # Oftener towards the end: an API server that comes back a second before the deadline is still found.
            await self._sleep(max(0.0, min(self._timing.retry_period_s, max(left / 2, LAST_TRIES_S), left)))
            left = self._renewed_at + self._timing.renew_deadline_s - self._clock()
            if left <= 0:
                return "deadline"
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    if not await self._try() and self.holder not in ("", self._identity):
                        return "taken"

    async def _try(self) -> bool:
        """One attempt to take or renew; every failure is False, because the deadline decides and not the error."""
        started = self._clock()
        try:
            held = await self._take_or_renew()
        except (ConflictError, AlreadyExistsError):
            return False
        except (ApiError, msgspec.DecodeError) as error:
            _log.warning("lease_attempt_failed", lease=self._name, identity=self._identity, error=str(error))
            return False
        if held:
            self._renewed_at = started
        return held

    async def _take_or_renew(self) -> bool:
        try:
            self._observe(await self._api.request("GET", self._path, timeout_s=self._timeout_s))
        except NotFoundError:
            metadata = {"name": self._name, "namespace": self._namespace}
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
            body = {**lease, "spec": self._spec(LeaseSpec(lease_transitions=-1))}
            self._observe(await create(self._api, body, manager=self._manager, timeout_s=self._timeout_s))
            return True
        if self.holder not in ("", self._identity) and not self._expired():
            return False
        spec = {**self._record.get("spec", {}), **self._spec(self._observed)}
        await self._write(spec)
        return True

    def _observe(self, body: bytes) -> None:
        spec = msgspec.json.decode(body, type=Lease).spec
        self._record = msgspec.json.decode(body)
        if spec != self._observed:
            first = self._observed_at == -math.inf
            self._saw_renewal = not first and spec.holder_identity not in (None, "", self._identity)
            self._observed, self._observed_at = spec, self._clock()

    def _expired(self) -> bool:
        # The holder may have been configured with a longer duration than we are.
        duration = max(self._timing.duration_s, float(self._observed.lease_duration_seconds or 0))
        return self._clock() >= self._observed_at + duration

    def _spec(self, old: LeaseSpec) -> dict[str, Any]:
        now = micro_time(self._now())
        renewal = old.holder_identity == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": math.ceil(self._timing.duration_s),
            "acquireTime": old.acquire_time if renewal and old.acquire_time else now,
            "renewTime": now,
            "leaseTransitions": (old.lease_transitions or 0) + (0 if renewal else 1),
        }

    async def _write(self, spec: dict[str, Any]) -> None:
        record = {**self._record, "spec": spec}
        self._observe(await replace(self._api, record, manager=self._manager, timeout_s=self._timeout_s))

    async def _release(self) -> None:
        """Gives the Lease up so that the next one need not wait; as client-go's ReleaseOnCancel does."""
        now = micro_time(self._now())
        given_up = {"holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": now, "renewTime": now}
        try:
            await self._write({**self._record.get("spec", {}), **given_up})
        except (ApiError, msgspec.DecodeError) as error:
            _log.warning("lease_not_released", lease=self._name, identity=self._identity, error=str(error))

    @property
    def _manager(self) -> str:
        return f"{self._name}-elector"


async def _stop(task: asyncio.Task[str]) -> None:
    task.cancel()
    await asyncio.wait({task})
