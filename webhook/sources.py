"""What the webhook knows about the cluster: namespaces and the oldest kubelet, mirrored: a review waits for nobody."""

from collections.abc import Mapping
from typing import Final, Protocol

import msgspec
import structlog

from kube.client import Api
from kube.errors import ApiError
from kube.kinds import NAMESPACES, NODES, Node
from kube.reflector import Reflector
from mesh.kubelet import KubeletVersion, KubeletVersionError
from mesh.pod import Namespace
from webhook.metrics import NAMESPACE_READS

_log: Final = structlog.get_logger("webhook")
_NAMESPACE: Final = msgspec.json.Decoder(Namespace)


class Cluster(Protocol):
    """The seam: bench and tests give fixed answers."""

    def namespace(self, name: str) -> Namespace | None:
        """The namespace as last seen, None if it was not."""
        ...

    async def read_namespace(self, name: str, *, timeout_s: float) -> Namespace | None:
        """The namespace from the API server, None if that fails or takes longer than `timeout_s` seconds."""
        ...

    @property
    def oldest_kubelet(self) -> KubeletVersion | None:
        """None while no node is known."""
        ...


class MirroredCluster:
    """Cluster from two reflectors; `run_namespaces` and `run_nodes` keep them going."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._namespaces = Reflector(api, NAMESPACES, Namespace)
        self._nodes = Reflector(api, NODES, Node, on_change=self._node_changed)
        self._kubelets: dict[str, KubeletVersion] = {}
        self._oldest: KubeletVersion | None = None
        self._store: Mapping[str, Namespace] = self._namespaces.store

    @property
    def synced(self) -> bool:
        """True once every namespace is known. Nodes do not count: without the right to list them nothing is skipped
        for its kubelet, and everything else works."""
        return self._namespaces.synced.is_set()

    async def run_namespaces(self) -> None:
        await self._namespaces.run()

    async def run_nodes(self) -> None:
        await self._nodes.run()

    def namespace(self, name: str) -> Namespace | None:
        return self._store.get(name)

    async def read_namespace(self, name: str, *, timeout_s: float) -> Namespace | None:
        try:
            namespace = _NAMESPACE.decode(await self._api.request("GET", f"{NAMESPACES}/{name}", timeout_s=timeout_s))
        except (ApiError, msgspec.DecodeError) as error:
            NAMESPACE_READS.labels("failed").inc()
            _log.warning("namespace_not_read", ns=name, error=str(error))
            return None
        NAMESPACE_READS.labels("read").inc()
        return namespace

    @property
    def oldest_kubelet(self) -> KubeletVersion | None:
        return self._oldest

    def _node_changed(self, name: str, node: Node | None) -> None:
        version = _kubelet_of(node)
        if self._kubelets.get(name) == version:
            return
        if version is None:
            del self._kubelets[name]
        else:
            self._kubelets[name] = version
        self._oldest = min(self._kubelets.values(), default=None)


def _kubelet_of(node: Node | None) -> KubeletVersion | None:
    # A pod that could land on Windows is skipped for that; those nodes say nothing about our sidecars.
    if node is None or node.status.node_info.operating_system == "windows":
        return None
    try:
        return KubeletVersion.parse(node.status.node_info.kubelet_version)
    except KubeletVersionError:
        # Virtual kubelets report what they like.
        return None
