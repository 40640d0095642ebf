"""The dashboard's pod in the cluster, as an address on this machine; found again when it is replaced. The edge."""

import asyncio
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

from cli.errors import CliError
from kube.client import HttpApi
from kube.errors import ApiError
from kube.portforward import forwarded
from kube.read import list_all
from mesh import names
from mesh.pod import Pod

_SELECTOR: Final = "app.kubernetes.io/name=autotls,app.kubernetes.io/component=dashboard"


class PagesPod:
    """cli.front.Backend over a port-forward, which lasts as long as the block."""

    def __init__(self, api: HttpApi, namespace: str) -> None:
        self._api, self._namespace = api, namespace
        self._forward = AsyncExitStack()
        self._address = ""
        self._lock = asyncio.Lock()
        self.reason = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._forward.aclose()

    async def address(self) -> str:
        """`http://127.0.0.1:PORT`. Raises ApiError, or CliError when no pod is there."""
        async with self._lock:
            if not self._address:
                pod = await self._find()
                port = await self._forward.enter_async_context(
                    forwarded(
                        self._api,
                        namespace=self._namespace,
                        pod=pod,
                        port=names.DASHBOARD_PORT,
                        complain=self._complain,
                    )
                )
                self._address = f"http://127.0.0.1:{port}"
            return self._address

    async def failed(self, address: str) -> None:
        """Forgets `address`; nothing when a newer one is in use already."""
        async with self._lock:
            if address and address == self._address:
                self._address = ""
                await self._forward.aclose()

    async def _find(self) -> str:
        pods = await list_all(self._api, f"/api/v1/namespaces/{self._namespace}/pods", Pod, label_selector=_SELECTOR)
        ready = [
            pod.metadata.name
            for pod in pods
            if not pod.metadata.deletion_timestamp and any(each.ready for each in pod.status.container_statuses or ())
        ]
        if not ready:
            raise CliError(
                f"no pod of the dashboard is ready in namespace {self._namespace}",
                hint=f"kubectl -n {self._namespace} get pods -l {_SELECTOR} (none: dashboard.enabled is false)",
            )
        return sorted(ready)[0]

    def _complain(self, error: ApiError) -> None:
        self.reason = error.message
