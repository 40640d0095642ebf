"""An Api for a leader's work whose writes stop when leadership does."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from kube.client import Api, Query
from kube.errors import NotLeaderError


class Leadership(Protocol):
    @property
    def is_leader(self) -> bool: ...

    def lease_left_s(self) -> float: ...


class FencedApi:
    """Refuses writes without leadership, and gives none longer than the Lease lasts.

    Cancellation alone is not enough: after a pause of the whole process the work may run a step before the elector
    notices that its time is over.
    """

    def __init__(self, api: Api, leadership: Leadership) -> None:
        self._api, self._leadership = api, leadership

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
        """As Api.request. Raises NotLeaderError, before anything is sent, for a write of a process that lost."""
        if method != "GET":
            if not self._leadership.is_leader:
                raise NotLeaderError(f"{method} {path} was not sent: this process does not lead any more")
            timeout_s = min(timeout_s, self._leadership.lease_left_s())
        return await self._api.request(
            method, path, query=query, body=body, content_type=content_type, timeout_s=timeout_s
        )

    def lines(
        self, path: str, *, query: Query = (), timeout_s: float
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """As Api.lines: reading is free."""
        return self._api.lines(path, query=query, timeout_s=timeout_s)
