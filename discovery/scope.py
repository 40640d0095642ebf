"""What a proxy is sent: what its pod can be expected to dial, or what its pod or namespace says that it dials."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from mesh import names
from mesh.pod import ObjectMeta
from mesh.values import REACH_ALL, reach_list

REACH_ANNOTATION: Final = f"{names.SETTING_PREFIX}reach"
# Among the owners of what everybody can be expected to dial: Services, and pods whose addresses DNS gives out.
EVERYBODY: Final = "*"


@dataclass(frozen=True, slots=True)
class Reach:
    """`entries`: the namespaces and `namespace/service` names a pod says it dials; None if it says nothing.

    Then it is what is for everybody and the pods of the namespace `home`; without a home it is all there is.
    """

    entries: frozenset[str] | None = None
    home: str = ""

    @classmethod
    def parse(cls, text: str, home: str) -> "Reach":
        """`shop, data/postgres`, or `*`. A text that cannot be read says nothing: a typo must not take TLS away.

        The webhook has said so at admission.
        """
        try:
            entries = reach_list(text)
        except ValueError:
            return cls(home=home)
        return EVERYTHING if entries == REACH_ALL else cls(frozenset(entries.split(",")))

    def covers(self, owners: Iterable[str]) -> bool:
        """True when one of `owners` (`namespace/service`, `namespace/` for a pod of it, EVERYBODY) is within reach."""
        if self.entries is not None:
            return any(owner in self.entries or owner.partition("/")[0] in self.entries for owner in owners)
        return not self.home or any(owner in (EVERYBODY, f"{self.home}/") for owner in owners)


EVERYTHING: Final = Reach()


def reach_of(pod: ObjectMeta, namespace: ObjectMeta | None) -> Reach:
    """By the pod's annotation, else its namespace's."""
    for metadata in (pod, namespace):
        text = metadata.annotation(REACH_ANNOTATION) if metadata else None
        if text is not None and text.strip():
            return Reach.parse(text, pod.namespace)
    return Reach(home=pod.namespace)
