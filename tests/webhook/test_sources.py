"""What the webhook knows about the cluster, from an API server in memory, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from kube import errors
from mesh.kubelet import KubeletVersion
from tests.fakes.clock import run_virtual
from tests.fakes.kubeapi import FakeApi
from webhook.sources import MirroredCluster


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def node(name: str, version: str, system: str = "linux") -> dict[str, Any]:
    info = {"kubeletVersion": version, "operatingSystem": system}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {"nodeInfo": info}}


def play(api: FakeApi, scene: Callable[[MirroredCluster], Awaitable[None]]) -> None:
    """Runs `scene` beside the two mirrors."""

    async def main() -> None:
        cluster = MirroredCluster(api)
        tasks = [asyncio.create_task(cluster.run_namespaces()), asyncio.create_task(cluster.run_nodes())]
        await asyncio.sleep(1)
        try:
            await scene(cluster)
        finally:
            for task in tasks:
                task.cancel()

    run_virtual(main())


def test_namespaces_are_mirrored_with_their_changes() -> None:
    api = FakeApi()
    api.seed(namespace("shop", team="a"))

    async def scene(cluster: MirroredCluster) -> None:
        assert cluster.synced
        seen = cluster.namespace("shop")
        assert seen is not None
        assert seen.metadata.label("team") == "a"
        assert cluster.namespace("other") is None
        api.seed(namespace("shop", team="b"))
        await asyncio.sleep(1)
        seen = cluster.namespace("shop")
        assert seen is not None
        assert seen.metadata.label("team") == "b"

    play(api, scene)


def test_namespace_is_read_live() -> None:
    api = FakeApi()
    api.seed(namespace("shop", team="a"))

    async def scene(cluster: MirroredCluster) -> None:
        read = await cluster.read_namespace("shop", timeout_s=0.5)
        assert read is not None
        assert read.metadata.label("team") == "a"
        assert await cluster.read_namespace("gone", timeout_s=0.5) is None

    play(api, scene)


def test_slow_api_server_costs_no_more_than_the_time_given() -> None:
    api = FakeApi()
    api.seed(namespace("shop"))

    async def scene(cluster: MirroredCluster) -> None:
        api.faults.latency_s = 60
        started = asyncio.get_running_loop().time()
        assert await cluster.read_namespace("shop", timeout_s=0.5) is None
        assert asyncio.get_running_loop().time() - started <= 0.6

    play(api, scene)


def test_oldest_kubelet_follows_the_nodes() -> None:
    api = FakeApi()
    api.seed(node("a", "v1.37.2"), node("b", "v1.28.4-gke.1"), node("w", "v1.20.0", "windows"), node("v", "virtual"))

    async def scene(cluster: MirroredCluster) -> None:
        assert cluster.oldest_kubelet == KubeletVersion(1, 28)
        api.seed(node("b", "v1.30.1"))
        await asyncio.sleep(1)
        assert cluster.oldest_kubelet == KubeletVersion(1, 30)
        api.remove("/api/v1/nodes/b")
        await asyncio.sleep(1)
        assert cluster.oldest_kubelet == KubeletVersion(1, 37)

    play(api, scene)


def test_without_the_right_to_list_nodes_everything_else_works() -> None:
    api = FakeApi()
    api.seed(namespace("shop"), node("a", "v1.20.0"))

    async def forbid(_verb: str, path: str, _body: bytes | None) -> None:
        if path.startswith("/api/v1/nodes"):
            raise errors.ForbiddenError(403, "Forbidden", "nodes is forbidden")

    api.faults.before = forbid

    async def scene(cluster: MirroredCluster) -> None:
        await asyncio.sleep(300)
        assert cluster.synced
        assert cluster.namespace("shop") is not None
        assert cluster.oldest_kubelet is None

    play(api, scene)
