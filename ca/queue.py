"""A level-triggered work queue: keys, not events; each at most once at a time; due times in one heap.

What it promises (client-go's workqueue, util/workqueue/queue.go, is the model):
- a key that is added while it waits is worked once; added while it is worked, once more afterwards;
- a failed key comes back after its own back-off with jitter; others are not held up by it;
- keys that are due later cost nothing until then, however many there are;
- what somebody waits for (`first`) is worked before everything that can wait.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from datetime import datetime, timedelta
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

# The wall clock may jump while the loop's clock does not (a suspended node): look at it once a minute at least.
_LONGEST_SLEEP_S: Final = 60.0
BACKOFF_FIRST: Final = timedelta(seconds=1)
BACKOFF_LAST: Final = timedelta(minutes=1)


class WorkQueue(Generic[K]):
    """Keys to work on; lives in one event loop.

    `clock` gives the time in UTC, `jitter` numbers from 0 to 1.
    """

    def __init__(self, *, clock: Callable[[], datetime], jitter: Callable[[], float]) -> None:
        self._clock, self._jitter = clock, jitter
        # A key that becomes urgent while it waits is in both; whichever turn comes first takes it out of `_waiting`.
        self._urgent: deque[K] = deque()
        self._ready: deque[K] = deque()
        self._waiting: set[K] = set()
        self._running: set[K] = set()
        self._again: set[K] = set()
        self._due: dict[K, datetime] = {}
        self._heap: list[tuple[datetime, int, K]] = []
        self._pushes = 0
        self._failures: dict[K, int] = {}
        self._some_ready = asyncio.Event()
        self._sooner = asyncio.Event()

    def add(self, key: K, *, first: bool = False) -> None:
        """Work on `key` as soon as may be; `first`: before all keys that were added without it."""
        self._due.pop(key, None)
        if key in self._running:
            self._again.add(key)
        elif first or key not in self._waiting:
            self._waiting.add(key)
            (self._urgent if first else self._ready).append(key)
            self._some_ready.set()

    def add_at(self, key: K, due: datetime) -> None:
        """Work on `key` at `due`, unless it is added before; replaces an earlier due time of the key."""
        if due <= self._clock():
            self.add(key)
            return
        self._due[key] = due
        self._pushes += 1
        heapq.heappush(self._heap, (due, self._pushes, key))
        if self._heap[0][2] == key:
            self._sooner.set()

    @property
    def depth(self) -> int:
        """Keys that could be worked on now, or are being worked on."""
        return len(self._waiting) + len(self._running)

    @property
    def scheduled(self) -> int:
        return len(self._due)

    async def run(self, work: Callable[[K], Awaitable[datetime | None]], *, workers: int) -> None:
        """For ever, with at most `workers` keys at a time; cancel to stop.

        `work` returns when the key is due again (None: when it is added again). What it raises ends the queue, so
        it catches what it can act on and calls `retry`.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._promote(), name="queue-timer")
            for number in range(workers):
                group.create_task(self._work(work), name=f"queue-worker-{number}")

    def retry(self, key: K, *, after: timedelta | None = None) -> datetime:
        """When a failed key comes back: 1 s, 2 s, 4 s ... 1 min, or `after`; shortened by up to a quarter."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        full = after if after is not None else min(BACKOFF_FIRST * 2 ** min(failures, 10), BACKOFF_LAST)
        return self._clock() + full * (1 - self._jitter() / 4)

    async def _work(self, work: Callable[[K], Awaitable[datetime | None]]) -> None:
        while True:
            while not (self._urgent or self._ready):
                self._some_ready.clear()
                await self._some_ready.wait()
            key = (self._urgent or self._ready).popleft()
            if key not in self._waiting:
                continue
            self._waiting.discard(key)
            self._running.add(key)
            failures = self._failures.get(key, 0)
            try:
                due = await work(key)
            finally:
                self._running.discard(key)
            if self._failures.get(key, 0) == failures:
                self._failures.pop(key, None)
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            elif due is not None:
                self.add_at(key, due)

    async def _promote(self) -> None:
        while True:
            now = self._clock()
            while self._heap and self._heap[0][0] <= now:
                due, _, key = heapq.heappop(self._heap)
                # An entry whose key got another due time, or was worked meanwhile, is left over.
                if self._due.get(key) == due:
                    self.add(key)
            delay = (self._heap[0][0] - now).total_seconds() if self._heap else _LONGEST_SLEEP_S
            self._sooner.clear()
            try:
                async with asyncio.timeout(min(delay, _LONGEST_SLEEP_S)):
                    await self._sooner.wait()
            except TimeoutError:
                continue
