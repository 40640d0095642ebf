"""Kubelet versions: whether a node knows native sidecars."""

import re
from dataclasses import dataclass
from typing import Final

from mesh.errors import AutotlsError

_VERSION: Final = re.compile(r"v?(\d{1,4})\.(\d{1,4})(?:[.+-].*)?\Z", re.ASCII)


class KubeletVersionError(AutotlsError):
    """A node reports a version that is none."""


@dataclass(frozen=True, slots=True, order=True)
class KubeletVersion:
    """The major and minor of a node's `status.nodeInfo.kubeletVersion`."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> "KubeletVersion":
        """Raises KubeletVersionError unless `text` starts as `v1.29` does; vendors add `-gke.1`, `+k3s1` and more."""
        match = _VERSION.match(text)
        if match is None:
            raise KubeletVersionError(
                f"{text[:64]!r} is not a kubelet version", hint="expected v<major>.<minor>.<patch>"
            )
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


# KEP-753: native sidecars are on by default from 1.29. Before, the API server drops `restartPolicy` of an init
# container silently, and the proxy would be an init container that never ends: the pod would hang.
OLDEST_WITH_NATIVE_SIDECARS: Final = KubeletVersion(1, 29)
