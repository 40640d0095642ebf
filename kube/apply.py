"""Writes: create, server-side apply, replace, merge patch, delete.

Objects are plain mappings with apiVersion, kind and metadata, as in a manifest. The body of a request never
appears in an error (see `kube.errors`).
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from kube.client import Api, Query
from kube.errors import UnknownKindError
from kube.kinds import collection_path, resource_of

APPLY_PATCH: Final = "application/apply-patch+yaml"
MERGE_PATCH: Final = "application/merge-patch+json"

Object = Mapping[str, Any]


def object_path(api_version: str, plural: str, name: str, namespace: str | None = None) -> str:
    """The path of one object, as `/api/v1/namespaces/x/secrets/y`."""
    return f"{collection_path(api_version, plural, namespace)}/{name}"


def path_of(obj: Object) -> str:
    """The path of `obj` by its apiVersion, kind and metadata. Raises UnknownKindError."""
    return f"{_collection_of(obj)}/{_metadata(obj)['name']}"


def _collection_of(obj: Object) -> str:
    resource = resource_of(str(obj.get("apiVersion", "")), str(obj.get("kind", "")))
    namespace = _metadata(obj).get("namespace")
    if resource.namespaced and not namespace:
        raise UnknownKindError(f"{resource.kind} {_metadata(obj).get('name')!r} has no namespace")
    return collection_path(resource.api_version, resource.plural, namespace if resource.namespaced else None)


def _metadata(obj: Object) -> Mapping[str, Any]:
    return obj.get("metadata") or {}


async def create(api: Api, obj: Object, *, manager: str, timeout_s: float = 15.0) -> bytes:
    """POST; the created object. Raises AlreadyExistsError when there is one of that name, else ApiError."""
    return await api.request(
        "POST",
        _collection_of(obj),
        query=(("fieldManager", manager),),
        body=msgspec.json.encode(obj),
        timeout_s=timeout_s,
    )


async def apply(
    api: Api, obj: Object, *, manager: str, force: bool = True, dry_run: bool = False, timeout_s: float = 15.0
) -> bytes:
    """Server-side apply; the object as it is afterwards. Applying the same again writes nothing.

    With metadata.resourceVersion in `obj` it holds only for that version; put metadata.uid beside it, because the API
    server lets a version alone create an object that is gone (seen on 1.37). Raises ConflictError for another version
    or uid, and without `force` for fields of another manager (the message names them); else ApiError.
    """
    query: Query = (("fieldManager", manager), ("force", "true" if force else "false"))
    if dry_run:
        query = (*query, ("dryRun", "All"))
    return await api.request(
        "PATCH",
        path_of(obj),
        query=query,
        body=msgspec.json.encode(obj),
        content_type=APPLY_PATCH,
        timeout_s=timeout_s,
    )


async def replace(api: Api, obj: Object, *, manager: str, timeout_s: float = 15.0) -> bytes:
    """PUT; the object as it is afterwards. Raises ConflictError when metadata.resourceVersion is not the current."""
    return await api.request(
        "PUT", path_of(obj), query=(("fieldManager", manager),), body=msgspec.json.encode(obj), timeout_s=timeout_s
    )


async def merge_patch(api: Api, path: str, patch: Object, *, manager: str, timeout_s: float = 15.0) -> bytes:
    """RFC 7386 merge patch; the object as it is afterwards. Raises ApiError."""
    return await api.request(
        "PATCH",
        path,
        query=(("fieldManager", manager),),
        body=msgspec.json.encode(patch),
        content_type=MERGE_PATCH,
        timeout_s=timeout_s,
    )


async def delete(
    api: Api, path: str, *, uid: str | None = None, resource_version: str | None = None, timeout_s: float = 15.0
) -> None:
    """DELETE, only if uid and resourceVersion still match when they are given.

    Raises NotFoundError when it is gone already, ConflictError when a precondition does not hold, else ApiError.
    """
    preconditions = {"uid": uid, "resourceVersion": resource_version}
    options = {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {key: value for key, value in preconditions.items() if value is not None},
    }
    await api.request("DELETE", path, body=msgspec.json.encode(options), timeout_s=timeout_s)
