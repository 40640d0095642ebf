"""Candidates of an election that can be watched: who works when, and whose line to the API server is cut."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from kube.client import Api, Query
from kube.errors import ApiError, UnreachableError
from kube.lease import Elector, LeaseTiming
from tests.fakes.clock import now

LEASE = "/apis/coordination.k8s.io/v1/namespaces/autotls/leases/autotls-ca"
WALL = datetime(2026, 1, 1, tzinfo=UTC)


class Line:
    """One candidate's way to the API server, which can be cut, in both ways that networks know."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.error: ApiError | None = None
        self.hangs = False
        self.answers_late_s = 0.0
        self.last_write_sent = 0.0

    def cut(self) -> None:
        self.error = UnreachableError("ConnectionRefusedError", "nobody listens")

    def mend(self) -> None:
        self.error, self.hangs = None, False

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: bytes | None = None,
        content_type: str = "application/json",
        timeout_s: float = 15.0,
    ) -> bytes:
        if self.hangs:
            await asyncio.sleep(timeout_s)
            raise UnreachableError("Timeout", path)
        if self.error is not None:
            raise self.error
        sent = asyncio.get_running_loop().time() if method != "GET" else self.last_write_sent
        answer = await self._api.request(
            method, path, query=query, body=body, content_type=content_type, timeout_s=timeout_s
        )
        self.last_write_sent = sent
        await asyncio.sleep(self.answers_late_s if method != "GET" else 0)
        return answer

    def lines(
        self, path: str, *, query: Query = (), timeout_s: float
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        if self.error is not None:
            raise self.error
        return self._api.lines(path, query=query, timeout_s=timeout_s)


class Candidate:
    """Works for ever once it leads, and needs `winding_down_s` to end. `shifts` are (start, end) of its work."""

    def __init__(
        self, api: Api, name: str, *, winding_down_s: float = 0.0, wall_error: timedelta = timedelta()
    ) -> None:
        self.name = name
        self.line = Line(api)
        self.shifts: list[tuple[float, float]] = []
        self.working = False
        self.aborted = asyncio.Event()
        self._winding_down_s = winding_down_s
        self._task: asyncio.Task[None] | None = None
        self.elector = Elector(
            self.line,
            namespace="autotls",
            name="autotls-ca",
            identity=name,
            timing=LeaseTiming(),
            clock=now,
            now=lambda: WALL + wall_error + timedelta(seconds=now()),
            jitter=lambda: 0.5,
            abort=self._abort,
        )

    def _abort(self) -> None:
        self.aborted.set()

    def start(self) -> "Candidate":
        self._task = asyncio.create_task(self.elector.run(self.work))
        return self

    async def stop(self) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def work(self) -> None:
        started, self.working = now(), True
        try:
            await asyncio.sleep(1e9)
        finally:
            try:
                await asyncio.sleep(self._winding_down_s)
            finally:
                self.working = False
                self.shifts.append((started, now()))


def overlaps(candidates: list[Candidate]) -> list[tuple[Any, Any]]:
    """Pairs of shifts that overlap in time, of any two candidates or of one with itself."""
    shifts = sorted((*shift, candidate.name) for candidate in candidates for shift in candidate.shifts)
    return [(one, two) for one, two in pairwise(shifts) if two[0] < one[1]]
