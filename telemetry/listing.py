"""The cluster as tables know it, read from the API server."""

import asyncio
from typing import TypeVar

from discovery.kinds import SERVICES, Service
from kube.client import Api
from kube.errors import ForbiddenError
from kube.kinds import HasMetadata
from kube.read import list_all
from telemetry.kinds import NODES, PODS, SeenNode, SeenPod
from telemetry.workloads import Inventory, inventory

K = TypeVar("K", bound=HasMetadata)


async def list_cluster(api: Api, namespace: str | None = None) -> tuple[Inventory, tuple[str, ...]]:
    """Pods, Services and nodes; and in sentences what could not be listed, and what that does.

    `namespace` is only looked at where the pods of the whole cluster may not be listed. Raises ApiError for the pods.
    """
    notes: list[str] = []
    pods = await _pods(api, namespace, notes)
    services, nodes = await asyncio.gather(
        _optional(api, SERVICES, Service, notes, "Services are not known by name"),
        _optional(api, NODES, SeenNode, notes, "the kubelet's probes are counted as plaintext"),
    )
    return inventory(pods, services, nodes), tuple(notes)


async def _pods(api: Api, namespace: str | None, notes: list[str]) -> tuple[SeenPod, ...]:
    try:
        return await list_all(api, PODS, SeenPod)
    except ForbiddenError:
        if namespace is None:
            raise
    found = await list_all(api, f"/api/v1/namespaces/{namespace}/pods", SeenPod)
    notes.append(f"only pods of {namespace} may be listed: plaintext from clients elsewhere is not counted")
    return found


async def _optional(api: Api, path: str, kind: type[K], notes: list[str], without: str) -> tuple[K, ...]:
    try:
        return await list_all(api, path, kind)
    except ForbiddenError:
        notes.append(f"{path.rpartition('/')[2]} may not be listed: {without}")
        return ()
