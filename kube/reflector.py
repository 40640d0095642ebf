"""A local mirror of one collection of the API server: paged list, then watch, for ever.

What it promises:
- `store` is never emptied by a fault: while the API server is away it keeps what was last known.
- `on_change` is called once for every object that really changed (its resourceVersion did), also after a relist.
- It never asks more often than its back-off allows, whatever the API server does: a watch that ends early and brought
  nothing counts as a failure, so a server that closes every watch at once cannot make it spin.
- An object that does not fit the projection keeps its last known state and is counted; the others are unaffected.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final, Generic, Literal, TypeVar

import msgspec
import structlog

from kube.client import Api
from kube.errors import (
    TIMED_OUT,
    ApiError,
    GoneError,
    Status,
    TooManyRequestsError,
    UnreachableError,
    error_from_status,
)
from kube.kinds import Bare, HasMetadata, ListMeta, key_of
from kube.metrics import RELISTS, UNDECODABLE, WATCH_RESTARTS
from kube.read import PAGE_SIZE, selectors, snapshot
from mesh.pod import Wire

T = TypeVar("T", bound=HasMetadata)

# client-go's reflector asks for 5 to 10 minutes, so that the watches of many clients do not end together.
WATCH_SECONDS: Final = 300
BACKOFF_FIRST_S: Final = 1.0
BACKOFF_LAST_S: Final = 30.0
# A watch that lived this long was no failure, even if nothing happened meanwhile.
STEADY_S: Final = 10.0

_log: Final = structlog.get_logger("kube.reflector")


class _Event(Wire, frozen=True):
    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: msgspec.Raw


class _Bookmark(Wire, frozen=True):
    metadata: ListMeta


_EVENT: Final = msgspec.json.Decoder(_Event)
_BOOKMARK: Final = msgspec.json.Decoder(_Bookmark)
_STATUS: Final = msgspec.json.Decoder(Status)
_BARE: Final = msgspec.json.Decoder(Bare)


def _jitter() -> float:
    return random.random()  # noqa: S311 - spreads load, guards nothing


class Reflector(Generic[T]):
    """Mirrors the objects under `path` that match the selectors.

    `on_change(key, object or None)` runs on the event loop, after `store` has changed; what it raises ends `run`.
    `jitter` gives numbers from 0 to 1, `clock` seconds that only grow.
    """

    def __init__(  # noqa: PLR0913 - the last three are only for tests
        self,
        api: Api,
        path: str,
        kind: type[T],
        *,
        on_change: Callable[[str, T | None], None] | None = None,
        label_selector: str = "",
        field_selector: str = "",
        page_size: int = PAGE_SIZE,
        jitter: Callable[[], float] = _jitter,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api, self._path, self._kind = api, path, kind
        self._on_change = on_change
        self._query = selectors(label_selector, field_selector)
        self._page_size = page_size
        self._jitter, self._sleep, self._clock = jitter, sleep, clock
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(kind)
        self._objects: dict[str, T] = {}
        # Where to watch from; empty: list first.
        self._version = ""
        self._failures = 0
        self.store: Mapping[str, T] = MappingProxyType(self._objects)
        self.synced = asyncio.Event()
        self.healthy_since: float | None = None
        self.last_error = ""
        self.relists = 0
        self.watch_restarts = 0

    async def run(self) -> None:
        """For ever; cancel to stop. Raises only what `on_change` raises."""
        while True:
            try:
                if not self._version:
                    await self._relist()
                await self._watch()
                self._ended("ended")
            except GoneError as error:
                self._version = ""
                self._ended("expired", error)
            except (ApiError, msgspec.DecodeError) as error:
                # A server that did not answer will know our version when it is back (it lives in etcd); after any
                # other answer, 504 "too large resource version" of a restored backup included, only a list is safe.
                if not isinstance(error, UnreachableError | TooManyRequestsError):
                    self._version = ""
                self._ended("failed", error)
            if self._failures:
                await self._sleep(self._delay())

    def _ended(self, cause: str, error: Exception | None = None) -> None:
        self.watch_restarts += 1
        WATCH_RESTARTS.labels(self._path, cause).inc()
        self._failures += 1
        if error is not None:
            self.healthy_since = None
            self.last_error = str(error)
            _log.warning("watch_interrupted", resource=self._path, cause=cause, error=str(error))

    def _delay(self) -> float:
        """1 s, 2 s, 4 s ... 30 s, each shortened by up to a half."""
        full = min(BACKOFF_FIRST_S * 2 ** (min(self._failures, 10) - 1), BACKOFF_LAST_S)
        return full * (1 - self._jitter() / 2)

    def _progress(self) -> None:
        # -1: the end of a watch that brought something is no failure, `_ended` makes it 0.
        self._failures = -1

    async def _relist(self) -> None:
        self.relists += 1
        RELISTS.labels(self._path).inc()
        items, unread, version = await snapshot(
            self._api, self._path, self._kind, query=self._query, page_size=self._page_size
        )
        fresh = {key_of(item.metadata): item for item in items}
        kept = fresh.keys() | {key_of(metadata) for metadata in unread}
        # The version is set before the callbacks run: they describe this very list.
        self._version = version
        for key in [key for key in self._objects if key not in kept]:
            self._remove(key)
        for key, item in fresh.items():
            self._put(key, item)
        self.synced.set()

    def _put(self, key: str, item: T) -> None:
        old = self._objects.get(key)
        self._objects[key] = item
        # Nothing is compared but the version: it changes with every write and with nothing else.
        if old is None or old.metadata.resource_version != item.metadata.resource_version:
            self._changed(key, item)

    def _remove(self, key: str) -> None:
        if self._objects.pop(key, None) is not None:
            self._changed(key, None)

    def _changed(self, key: str, item: T | None) -> None:
        if self._on_change is not None:
            self._on_change(key, item)

    async def _watch(self) -> None:
        seconds = WATCH_SECONDS + int(WATCH_SECONDS * self._jitter())
        query = (
            *self._query,
            ("watch", "1"),
            ("resourceVersion", self._version),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", str(seconds)),
        )
        started = self._clock()
        try:
            # 30 s more than the server was told: the client's own limit is for a server that does not keep it.
            async with self._api.lines(self._path, query=query, timeout_s=seconds + 30) as lines:
                if self.healthy_since is None:
                    self.healthy_since = self._clock()
                await self._follow(lines)
        except UnreachableError as error:
            # Silence. The connection may be dead or the resource quiet (etcd without progress notifications gives the
            # API server no bookmark to send): a new watch from the same version finds out and loses nothing.
            if error.reason != TIMED_OUT or self._clock() - started < STEADY_S:
                raise
        if self._clock() - started >= STEADY_S:
            self._progress()

    async def _follow(self, lines: AsyncIterator[bytes]) -> None:
        async for line in lines:
            event = _EVENT.decode(line)
            if event.type == "ERROR":
                status = _STATUS.decode(event.object)
                raise error_from_status(status.code or 500, status, path=self._path)
            self._version = self._take(event)
            self._progress()

    def _take(self, event: _Event) -> str:
        """Applies one event; the version to go on from."""
        if event.type == "BOOKMARK":
            return _BOOKMARK.decode(event.object).metadata.resource_version
        try:
            item = self._decoder.decode(event.object)
        except msgspec.ValidationError as error:
            return self._take_unreadable(event, error)
        key = key_of(item.metadata)
        if event.type == "DELETED":
            self._remove(key)
        else:
            self._put(key, item)
        return item.metadata.resource_version

    def _take_unreadable(self, event: _Event, error: msgspec.ValidationError) -> str:
        metadata = _BARE.decode(event.object).metadata
        key = key_of(metadata)
        if event.type == "DELETED":
            self._remove(key)
        else:
            UNDECODABLE.labels(self._path).inc()
            # msgspec names the path of the field, never its value.
            _log.error("object_not_understood", resource=self._path, key=key, error=str(error))
        return metadata.resource_version
