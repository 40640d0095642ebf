"""Reads: one object, or a whole collection by pages."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

import msgspec

from kube.client import Api, Query
from kube.errors import GoneError
from kube.kinds import Bare, HasMetadata, ListMeta
from kube.metrics import UNDECODABLE
from mesh.pod import ObjectMeta, Wire

T = TypeVar("T", bound=HasMetadata)

# A page of 500 pods is about 8 MB and takes 7-15 ms to decode: no other task waits longer than that.
PAGE_SIZE: Final = 500
LIST_TIMEOUT_S: Final = 60.0


class _ObjectList(Wire, Generic[T], frozen=True):
    metadata: ListMeta
    items: tuple[T, ...] | None = None


class _RawList(Wire, frozen=True):
    metadata: ListMeta
    items: tuple[msgspec.Raw, ...] | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page; `unread` names objects that did not fit the projection, `next_page` is empty on the last one."""

    items: tuple[T, ...]
    resource_version: str
    next_page: str
    unread: tuple[ObjectMeta, ...] = ()


async def get(api: Api, path: str, kind: type[T], *, timeout_s: float = 15.0) -> T:
    """One object. Raises NotFoundError, else ApiError; msgspec.ValidationError when it is not a `kind`."""
    return msgspec.json.decode(await api.request("GET", path, timeout_s=timeout_s), type=kind)


async def list_all(
    api: Api,
    path: str,
    kind: type[T],
    *,
    label_selector: str = "",
    field_selector: str = "",
    page_size: int = PAGE_SIZE,
) -> tuple[T, ...]:
    """Every object of a collection that matches, read by pages. Raises ApiError."""
    query = selectors(label_selector, field_selector)
    found: list[T] = []
    async for page in pages(api, path, kind, query=query, page_size=page_size):
        found.extend(page.items)
    return tuple(found)


def selectors(label_selector: str, field_selector: str) -> Query:
    """The selectors as query parameters, empty ones left out."""
    both = (("labelSelector", label_selector), ("fieldSelector", field_selector))
    return tuple(pair for pair in both if pair[1])


async def pages(
    api: Api, path: str, kind: type[T], *, query: Query = (), page_size: int = PAGE_SIZE
) -> AsyncIterator[Page[T]]:
    """The pages of a collection, all of the same resourceVersion.

    Raises GoneError when a continue token expired on the way (etcd compacts every 5 minutes), else ApiError.
    """
    token = ""
    while True:
        asked = (*query, ("limit", str(page_size)), *((("continue", token),) if token else ()))
        body = await api.request("GET", path, query=asked, timeout_s=LIST_TIMEOUT_S)
        page = decode_page(body, kind, resource=path)
        yield page
        if not (token := page.next_page):
            return


async def snapshot(
    api: Api, path: str, kind: type[T], *, query: Query = (), page_size: int = PAGE_SIZE
) -> tuple[list[T], list[ObjectMeta], str]:
    """All items, what could not be read, and the resourceVersion to watch from. Raises ApiError.

    When a continue token expires on the way the list is read again in one piece, as client-go's pager does: the
    pages would only expire again.
    """
    try:
        return await _gather(pages(api, path, kind, query=query, page_size=page_size))
    except GoneError:
        return await _gather(pages(api, path, kind, query=query, page_size=0))


async def _gather(source: AsyncIterator[Page[T]]) -> tuple[list[T], list[ObjectMeta], str]:
    items: list[T] = []
    unread: list[ObjectMeta] = []
    version = ""
    async for page in source:
        items.extend(page.items)
        unread.extend(page.unread)
        version = page.resource_version
    return items, unread, version


@lru_cache(maxsize=64)
def _list_decoder(kind: type[Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(_ObjectList[kind])


def decode_page(body: bytes, kind: type[T], *, resource: str) -> Page[T]:
    """A page from a list's body; an object that does not fit `kind` is set aside instead of spoiling the page.

    Raises msgspec.DecodeError when the body is no list at all.
    """
    try:
        page: _ObjectList[T] = _list_decoder(kind).decode(body)
    except msgspec.ValidationError:
        return _decode_one_by_one(body, kind, resource)
    return Page(page.items or (), page.metadata.resource_version, page.metadata.next_page)


def _decode_one_by_one(body: bytes, kind: type[T], resource: str) -> Page[T]:
    raw = msgspec.json.decode(body, type=_RawList)
    items: list[T] = []
    unread: list[ObjectMeta] = []
    for item in raw.items or ():
        try:
            items.append(msgspec.json.decode(item, type=kind))
        except msgspec.ValidationError:
            UNDECODABLE.labels(resource).inc()
            unread.append(msgspec.json.decode(item, type=Bare).metadata)
    return Page(tuple(items), raw.metadata.resource_version, raw.metadata.next_page, tuple(unread))
