"""What a proxy is sent: everything that is meshed, or what its pod or namespace says it reaches."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from mesh import names
from mesh.pod import ObjectMeta
from mesh.values import reach_list

REACH_ANNOTATION: Final = f"{names.SETTING_PREFIX}reach"


@dataclass(frozen=True, slots=True)
class Reach:
    """The namespaces and `namespace/service` names a pod dials; `entries` None means all of them."""

    entries: frozenset[str] | None = None

    @classmethod
    def parse(cls, text: str) -> "Reach":
        """`shop, data/postgres`. A text that cannot be read is everything: a typo must not take TLS away.

        The webhook has said so at admission.
        """
        try:
            return cls(frozenset(reach_list(text).split(",")))
        except ValueError:
            return EVERYWHERE

    def covers(self, owners: Iterable[str]) -> bool:
        """True when one of `owners` (`namespace/service`, or `namespace/` for a pod of it) is within reach."""
        if self.entries is None:
            return True
        return any(owner in self.entries or owner.partition("/")[0] in self.entries for owner in owners)


EVERYWHERE: Final = Reach()


def reach_of(pod: ObjectMeta, namespace: ObjectMeta | None) -> Reach:
    """The pod's annotation, else its namespace's, else everything."""
    for metadata in (pod, namespace):
        text = metadata.annotation(REACH_ANNOTATION) if metadata else None
        if text is not None and text.strip():
            return Reach.parse(text)
    return EVERYWHERE
