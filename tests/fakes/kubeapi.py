"""A Kubernetes API server in memory, behind the `Api` protocol.

It keeps the promises that our code leans on: one resourceVersion for everything, paged lists that are one snapshot,
watches with bookmarks and 410 after compaction, optimistic locks, preconditions, server-side apply with owners, writes
that change nothing and get no new version. It knows no schemas, defaults, finalizers or garbage collection.

    api = FakeApi()
    api.seed({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    api.faults.refuse(3)                      # the next three requests find nobody
    api.faults.before = hook                  # async (verb, path, body) -> None; may raise an ApiError or wait
    api.terminate_namespace("shop")           # creates are refused as the API server refuses them
    api.compact(); api.drop_watches(); api.bookmark()
    api.requests                              # [("GET", "/api/v1/pods"), ...]
"""

import asyncio
import base64
import copy
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from kube import errors
from kube.apply import APPLY_PATCH, MERGE_PATCH, path_of
from kube.client import Query
from tests.fakes import ssa
from tests.fakes.changes import Change, Obj, Target, event_of
from tests.fakes.faults import Faults
from tests.fakes.selectors import Predicate, matcher


class FakeApi:
    """See the module's text."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.requests: list[tuple[str, str]] = []
        self.objects: dict[Target, Obj] = {}
        self.version = 0
        self._owners: dict[Target, ssa.Owners] = {}
        self._history: list[Change] = []
        self._compacted = 0
        self._pages: dict[str, tuple[list[Obj], int]] = {}
        self._watches: set[asyncio.Queue[Change | str]] = set()
        self._terminating: set[str] = set()

    # What tests do to it

    def seed(self, *objs: Mapping[str, Any], manager: str = "seed") -> None:
        """Creates or replaces objects, faults and admission aside."""
        for obj in objs:
            target = Target.parse(path_of(obj))
            self._write(target, copy.deepcopy(dict(obj)), manager)

    def get(self, path: str) -> Obj:
        """The object as stored; KeyError when it is not there."""
        return self.objects[Target.parse(path)]

    def listed(self, plural: str, namespace: str = "") -> list[Obj]:
        """All objects of a plural, of one namespace when given."""
        return [o for t, o in sorted(self.objects.items(), key=lambda p: (p[0].namespace, p[0].name))
                if t.plural == plural and namespace in ("", t.namespace)]  # fmt: skip

    def remove(self, path: str) -> None:
        self._delete(Target.parse(path))

    def compact(self) -> None:
        """Forgets history: older watches get 410, continue tokens expire."""
        self._compacted = self.version
        self._history.clear()
        self._pages.clear()

    def drop_watches(self) -> None:
        """Breaks every open watch."""
        self._tell("broken")

    def time_out_watches(self) -> None:
        """Ends every open watch as the client does after a long silence."""
        self._tell("silent")

    def bookmark(self) -> None:
        self._tell("bookmark")

    @property
    def open_watches(self) -> int:
        return len(self._watches)

    def terminate_namespace(self, namespace: str) -> None:
        self._terminating.add(namespace)

    # Api

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
        self.requests.append((method, path))
        await self.faults.meet(method, path, body, timeout_s)
        target, options = Target.parse(path), dict(query)
        obj: Obj = json.loads(body) if body else {}
        if method == "GET":
            return _encode(self._read(target) if target.name else self._list(target, options))
        if method == "DELETE":
            self._check_preconditions(self._read(target), obj.get("preconditions") or {})
            return _encode(self._delete(target))
        manager = options.get("fieldManager", "unknown")
        dry_run = options.get("dryRun") == "All"
        if method == "POST":
            return _encode(self._create(target, obj, manager, dry_run=dry_run))
        if method == "PUT":
            self._check_preconditions(self._read(target), obj.get("metadata", {}))
            return _encode(self._write(target, obj, manager, dry_run=dry_run))
        if content_type == APPLY_PATCH:
            return _encode(self._apply(target, obj, manager, force=options.get("force") == "true", dry_run=dry_run))
        if content_type == MERGE_PATCH:
            merged = ssa.merge_patch(self._read(target), obj)
            return _encode(self._write(target, merged, manager, dry_run=dry_run))
        raise errors.InvalidError(415, "UnsupportedMediaType", content_type)

    @asynccontextmanager
    async def lines(
        self, path: str, *, query: Query = (), timeout_s: float
    ) -> AsyncGenerator[AsyncIterator[bytes], None]:
        self.requests.append(("WATCH", path))
        await self.faults.meet("WATCH", path, None, timeout_s)
        target, options = Target.parse(path), dict(query)
        since = int(options.get("resourceVersion") or self.version)
        if since < self._compacted:
            raise errors.GoneError(410, "Expired", f"too old resource version: {since} ({self._compacted})")
        queue: asyncio.Queue[Change | str] = asyncio.Queue()
        for change in self._history:
            if change.version > since:
                queue.put_nowait(change)
        self._watches.add(queue)
        try:
            seconds = min(float(options.get("timeoutSeconds", timeout_s)), timeout_s)
            yield self._stream(queue, target, options, asyncio.get_running_loop().time() + seconds)
        finally:
            self._watches.discard(queue)

    async def _stream(
        self, queue: "asyncio.Queue[Change | str]", target: Target, options: Mapping[str, str], until: float
    ) -> AsyncIterator[bytes]:
        matches = _matcher(options)
        while True:
            try:
                async with asyncio.timeout_at(until):
                    item = await queue.get()
            except TimeoutError:
                yield self._bookmark_line(target)
                return
            if item == "broken":
                raise errors.UnreachableError("ClientPayloadError", "the connection broke")
            if item == "silent":
                raise errors.UnreachableError(errors.TIMED_OUT, "nothing came for long")
            if isinstance(item, str):
                if options.get("allowWatchBookmarks") == "true":
                    yield self._bookmark_line(target)
            elif (event := event_of(item, target, matches)) is not None:
                yield _encode(event)

    def _bookmark_line(self, target: Target) -> bytes:
        metadata = {"resourceVersion": str(self.version), "creationTimestamp": None}
        return _encode({"type": "BOOKMARK", "object": {"kind": target.kind, "metadata": metadata}})

    # The store

    def _tell(self, item: Change | str) -> None:
        for queue in self._watches:
            queue.put_nowait(item)

    def _read(self, target: Target) -> Obj:
        try:
            return self.objects[target]
        except KeyError:
            raise errors.NotFoundError(404, "NotFound", f'{target.plural} "{target.name}" not found') from None

    def _list(self, target: Target, options: Mapping[str, str]) -> Obj:
        if token := options.get("continue"):
            if token not in self._pages:
                raise errors.GoneError(410, "Expired", "The provided continue parameter is too old")
            items, version = self._pages.pop(token)
        else:
            matches, version = _matcher(options), self.version
            items = [obj for obj in self.listed(target.plural, target.namespace) if matches(obj)]
        limit = int(options.get("limit", "0")) or len(items)
        metadata = {"resourceVersion": str(version)}
        if items[limit:]:
            metadata["continue"] = base64.b64encode(f"{version}/{len(self._pages)}/{len(items)}".encode()).decode()
            self._pages[metadata["continue"]] = (items[limit:], version)
        return {"kind": f"{target.kind}List", "metadata": metadata, "items": items[:limit]}

    def _create(self, target: Target, obj: Obj, manager: str, *, dry_run: bool) -> Obj:
        metadata = obj.setdefault("metadata", {})
        name = metadata.get("name") or f"{metadata.get('generateName', '')}{self.version + 1:05x}"
        metadata["name"] = name
        target = Target(target.api_version, target.plural, target.namespace, name)
        self._admit_create(target)
        if target in self.objects:
            raise errors.AlreadyExistsError(409, "AlreadyExists", f'{target.plural} "{name}" already exists')
        return self._write(target, obj, manager, dry_run=dry_run)

    def _admit_create(self, target: Target) -> None:
        if target.namespace in self._terminating:
            message = f'{target.plural} "{target.name}" is forbidden: namespace {target.namespace} is being terminated'
            raise errors.ForbiddenError(403, "Forbidden", message, causes=("NamespaceTerminating",))

    def _apply(self, target: Target, obj: Obj, manager: str, *, force: bool, dry_run: bool) -> Obj:
        current = self.objects.get(target)
        if current is None:
            self._admit_create(target)
            # As the real one (1.37): a resourceVersion of something that is gone does not matter, a uid does.
            if obj.get("metadata", {}).get("uid"):
                raise errors.ConflictError(409, "Conflict", "uid mismatch: no existing object was found")
        else:
            self._check_preconditions(current, obj.get("metadata", {}))
        owners = copy.deepcopy(self._owners.get(target, {}))
        try:
            merged = ssa.apply(current or {}, obj, owners, manager, force=force)
        except ssa.FieldConflict as conflict:
            causes = ("FieldManagerConflict",) * len(conflict.conflicts)
            raise errors.ConflictError(409, "Conflict", str(conflict), causes=causes) from None
        return self._write(target, merged, manager, owners=owners, dry_run=dry_run)

    def _write(
        self, target: Target, obj: Obj, manager: str, *, owners: ssa.Owners | None = None, dry_run: bool = False
    ) -> Obj:
        old = self.objects.get(target)
        metadata = {**obj.get("metadata", {}), "name": target.name}
        if target.namespace:
            metadata["namespace"] = target.namespace
        kept = old["metadata"] if old else {"uid": f"uid-{self.version + 1}", "creationTimestamp": CREATED}
        metadata |= {key: kept[key] for key in ("uid", "creationTimestamp")}
        metadata["resourceVersion"] = kept.get("resourceVersion", "")
        new = {**_secret_data(obj), "apiVersion": target.api_version, "kind": target.kind, "metadata": metadata}
        if dry_run:
            return new
        if owners is None:
            owners = self._owners.get(target, {})
            ssa.take_over(old or {}, new, owners, manager)
        self._owners[target] = owners
        if new == old:
            return new
        self.version += 1
        metadata["resourceVersion"] = str(self.version)
        self.objects[target] = new
        self._record(target, old, new)
        return new

    def _delete(self, target: Target) -> Obj:
        old = self._read(target)
        del self.objects[target]
        self._owners.pop(target, None)
        self.version += 1
        self._record(target, {**old, "metadata": {**old["metadata"], "resourceVersion": str(self.version)}}, None)
        return old

    def _record(self, target: Target, old: Obj | None, new: Obj | None) -> None:
        change = Change(self.version, target, old, new)
        self._history.append(change)
        self._tell(change)

    def _check_preconditions(self, current: Obj, wanted: Mapping[str, Any]) -> None:
        for key in ("uid", "resourceVersion"):
            if wanted.get(key) and wanted[key] != current["metadata"][key]:
                message = f"the {key} in the precondition ({wanted[key]}) does not match ({current['metadata'][key]})"
                raise errors.ConflictError(409, "Conflict", message)


CREATED = "2026-01-01T00:00:00Z"


def _encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def _matcher(options: Mapping[str, str]) -> Predicate:
    return matcher(options.get("labelSelector", ""), options.get("fieldSelector", ""))


def _secret_data(obj: Obj) -> Obj:
    """Secrets take text in `stringData`, which the API server encodes."""
    if not (text := obj.get("stringData")):
        return obj
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in text.items()}
    return {**{k: v for k, v in obj.items() if k != "stringData"}, "data": {**(obj.get("data") or {}), **encoded}}
