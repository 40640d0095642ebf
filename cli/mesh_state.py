"""What `inject` needs to know of a cluster, asked or not. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.config import MeshConfig
from mesh.pod import Namespace


@dataclass(frozen=True, slots=True)
class MeshState:
    """The configuration and the namespaces of the manifests, as far as they exist.

    `told` says in one sentence where it comes from; empty when the user did not ask.
    """

    config: MeshConfig = field(default_factory=MeshConfig)
    namespaces: Mapping[str, Namespace] = field(default_factory=dict[str, Namespace])
    told: str = ""


def by_default(why: str, namespaces: Mapping[str, Namespace] | None = None) -> MeshState:
    """The default settings, and why it is those."""
    return MeshState(MeshConfig(), namespaces or {}, f"{why}: the default settings are used")
