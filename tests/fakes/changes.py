"""What a path points at, one write in the history, and what a watch sees of it."""

from dataclasses import dataclass
from typing import Any

from kube import errors
from kube.kinds import RESOURCES
from tests.fakes.selectors import Predicate

Obj = dict[str, Any]
_KINDS = {(resource.api_version, resource.plural): resource for resource in RESOURCES}


@dataclass(frozen=True, slots=True)
class Target:
    """What a path points at."""

    api_version: str
    plural: str
    namespace: str = ""
    name: str = ""

    @classmethod
    def parse(cls, path: str) -> "Target":
        parts = path.strip("/").split("/")
        version, rest = (parts[1], parts[2:]) if parts[0] == "api" else ("/".join(parts[1:3]), parts[3:])
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        if (version, rest[0]) not in _KINDS or len(rest) > 2:
            raise errors.NotFoundError(404, "NotFound", "the server could not find the requested resource")
        return cls(version, rest[0], namespace, rest[1] if len(rest) > 1 else "")

    @property
    def kind(self) -> str:
        return _KINDS[(self.api_version, self.plural)].kind


@dataclass(frozen=True, slots=True)
class Change:
    """One write in the history; `old` or `new` is None when the object was not there."""

    version: int
    target: Target
    old: Obj | None
    new: Obj | None


def event_of(change: Change, target: Target, matches: Predicate) -> Obj | None:
    """What a watch of `target` sees of a change; leaving the selector is a deletion, entering it an addition."""
    of = change.target
    if (of.api_version, of.plural) != (target.api_version, target.plural) or target.namespace not in ("", of.namespace):
        return None
    before = change.old is not None and matches(change.old)
    after = change.new is not None and matches(change.new)
    if after:
        return {"type": "MODIFIED" if before else "ADDED", "object": change.new}
    if not before:
        return None
    gone = change.new or change.old or {}
    metadata = {**gone["metadata"], "resourceVersion": str(change.version)}
    return {"type": "DELETED", "object": {**(change.old or {}), "metadata": metadata}}
