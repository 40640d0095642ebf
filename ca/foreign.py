"""Objects that bear a name of ours and are not ours: left alone, counted, and told to their owner by an Event."""

from collections.abc import Callable
from typing import Final

import structlog

from ca import metrics
from mesh import names
from mesh.pod import ObjectMeta

REASON: Final = "ForeignObject"

# kind, object, text; the Event is written by somebody else, in his own time.
Announce = Callable[[str, ObjectMeta, str], None]

_log: Final = structlog.get_logger("ca.foreign")


class Foreigners:
    """The foreign objects that are known now."""

    def __init__(self, announce: Announce) -> None:
        self._announce = announce
        self._known: dict[tuple[str, str], str] = {}

    def found(self, kind: str, metadata: ObjectMeta) -> None:
        """Reports an object once per uid."""
        key = (kind, f"{metadata.namespace}/{metadata.name}" if metadata.namespace else metadata.name)
        if self._known.get(key) == metadata.uid:
            return
        self._known[key] = metadata.uid
        metrics.FOREIGN.set(len(self._known))
        _log.warning("foreign_object_found", kind=kind, object=key[1])
        self._announce(kind, metadata, text(kind, metadata))

    def gone(self, kind: str, key: str) -> None:
        """`key` is ours again, or nobody's."""
        if self._known.pop((kind, key), None) is not None:
            metrics.FOREIGN.set(len(self._known))

    @property
    def count(self) -> int:
        return len(self._known)


def text(kind: str, metadata: ObjectMeta) -> str:
    """What the owner reads, and what he can do."""
    what = "no pod of its ServiceAccount gets an identity" if kind == "Secret" else "it is not kept up to date"
    return (
        f"{kind} {metadata.name} has a name of autotls but was not made by it (labels {names.MANAGED_BY_LABEL} and "
        f"{names.CONTROL_PLANE_LABEL}, and its author): it is left alone, and {what}. Remove or rename it."
    )
