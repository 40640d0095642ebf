"""The work queue under virtual time."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from ca.queue import WorkQueue
from tests.ca.authorities import T0
from tests.ca.harness import clock, virtual
from tests.fakes.clock import now


class Bench:
    """A queue with a recording worker."""

    def __init__(self, work: Callable[[str], Awaitable[datetime | None]] | None = None, workers: int = 2) -> None:
        self.queue: WorkQueue[str] = WorkQueue(clock=clock, jitter=lambda: 0.0)
        self.done: list[tuple[str, float]] = []
        self._inner = work
        self._workers = workers

    async def _work(self, key: str) -> datetime | None:
        self.done.append((key, now()))
        return await self._inner(key) if self._inner else None

    async def for_seconds(self, seconds: float) -> None:
        task = asyncio.create_task(self.queue.run(self._work, workers=self._workers))
        await asyncio.sleep(seconds)
        assert not task.done()
        task.cancel()
        await asyncio.wait({task})


@virtual
async def test_a_key_that_is_added_many_times_while_it_waits_is_worked_once() -> None:
    bench = Bench()
    for _ in range(5):
        bench.queue.add("a")
    await bench.for_seconds(1)
    assert bench.done == [("a", 0.0)]


@virtual
async def test_a_key_that_is_added_while_it_is_worked_is_worked_once_more_and_never_twice_at_a_time() -> None:
    running: set[str] = set()

    async def slow(key: str) -> None:
        assert key not in running
        running.add(key)
        if len(bench.done) == 1:
            bench.queue.add(key)
            bench.queue.add(key)
        await asyncio.sleep(5)
        running.remove(key)

    bench = Bench(slow)
    bench.queue.add("a")
    await bench.for_seconds(30)
    assert bench.done == [("a", 0.0), ("a", 5.0)]


@virtual
async def test_no_more_keys_are_worked_at_a_time_than_there_are_workers() -> None:
    async def slow(_: str) -> None:
        await asyncio.sleep(10)

    bench = Bench(slow, workers=3)
    for number in range(7):
        bench.queue.add(str(number))
    await bench.for_seconds(100)
    assert [at for _, at in bench.done] == [0, 0, 0, 10, 10, 10, 20]


@virtual
async def test_a_key_comes_back_when_it_said_and_a_later_due_time_replaces_an_earlier() -> None:
    bench = Bench()
    bench.queue.add_at("a", T0 + timedelta(hours=16))
    bench.queue.add_at("b", T0 + timedelta(seconds=30))
    bench.queue.add_at("b", T0 + timedelta(seconds=90))
    await bench.for_seconds(17 * 3600)
    assert [(key, round(at)) for key, at in bench.done] == [("b", 90), ("a", 16 * 3600)]
    assert bench.queue.scheduled == 0


@virtual
async def test_adding_a_key_now_cancels_its_due_time() -> None:
    bench = Bench()
    bench.queue.add_at("a", T0 + timedelta(seconds=30))
    bench.queue.add("a")
    await bench.for_seconds(60)
    assert bench.done == [("a", 0.0)]


@virtual
async def test_failures_back_off_to_a_minute_and_success_forgets_them() -> None:
    async def failing(key: str) -> datetime | None:
        return bench.queue.retry(key) if len(bench.done) <= 9 else None

    bench = Bench(failing)
    bench.queue.add("a")
    await bench.for_seconds(1000)
    times = [round(at) for _, at in bench.done]
    assert [b - a for a, b in itertools.pairwise(times)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert bench.queue.retry("a") == clock() + timedelta(seconds=1)


@virtual
async def test_a_failing_key_does_not_hold_up_others() -> None:
    async def work(key: str) -> datetime | None:
        return bench.queue.retry(key, after=timedelta(minutes=5)) if key == "bad" else None

    bench = Bench(work, workers=1)
    bench.queue.add("bad")
    bench.queue.add("good")
    await bench.for_seconds(1)
    assert [key for key, _ in bench.done] == ["bad", "good"]


@virtual
async def test_what_somebody_waits_for_is_worked_before_all_that_can_wait_and_once() -> None:
    bench = Bench(workers=1)
    for key in "abc":
        bench.queue.add(key)
    # One that waits already, and one that is new.
    bench.queue.add("c", first=True)
    bench.queue.add("d", first=True)
    bench.queue.add("a", first=True)
    assert bench.queue.depth == 4
    await bench.for_seconds(1)
    assert [key for key, _ in bench.done] == ["c", "d", "a", "b"]
    bench.queue.add("c")
    await bench.for_seconds(1)
    assert [key for key, _ in bench.done] == ["c", "d", "a", "b", "c"]
    assert bench.queue.depth == 0


@virtual
async def test_a_thousand_keys_that_are_due_later_cost_one_timer() -> None:
    bench = Bench()
    for number in range(1000):
        bench.queue.add_at(str(number), T0 + timedelta(hours=16, seconds=number))
    wakes = 0
    original = bench.queue._clock

    def counting() -> datetime:
        nonlocal wakes
        wakes += 1
        return original()

    bench.queue._clock = counting
    await bench.for_seconds(3600)
    assert bench.done == []
    assert wakes <= 61
