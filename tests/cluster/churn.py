"""Services that are made, changed and deleted at a steady rate, straight through the API: kubectl takes a second."""

import asyncio
from dataclasses import dataclass
from typing import Final

import msgspec

from kube.client import HttpApi, connect
from tests.cluster.kubectl import Object, Space

_MANAGER: Final = (("fieldManager", "churn"), ("force", "true"))


@dataclass(frozen=True, slots=True)
class Churn:
    """`services` of them, each made, changed `changes` times and deleted; all begin at `rate` a second."""

    services: int
    changes: int
    rate: float

    @property
    def total(self) -> int:
        return self.services * (self.changes + 2)

    async def run(self, where: Space) -> float:
        """How many a second it were, from the first's beginning to the last's end.

        Open loop: each begins when it is due, whatever became of the others, but waits for the one before of its own
        Service. Raises ApiError.
        """
        loop = asyncio.get_running_loop()
        turns = [asyncio.Lock() for _ in range(self.services)]
        async with connect(kubeconfig=str(where.cluster.kubeconfig)) as api, asyncio.TaskGroup() as tasks:
            begun = loop.time()
            for number in range(self.total):
                await asyncio.sleep(begun + number / self.rate - loop.time())
                tasks.create_task(self._change(api, where, number, turns[number % self.services]))
        return (self.total - 1) / (loop.time() - begun)

    async def _change(self, api: HttpApi, where: Space, number: int, turn: asyncio.Lock) -> None:
        step, service = divmod(number, self.services)
        path = f"/api/v1/namespaces/{where.name}/services/churn-{service}"
        async with turn:
            if step > self.changes:
                await api.request("DELETE", path)
                return
            await api.request(
                "PATCH",
                path,
                query=_MANAGER,
                body=msgspec.json.encode(_service(service, 9000 + step)),
                content_type="application/apply-patch+yaml",
            )


def _service(number: int, port: int) -> Object:
    # There is a meshed pod behind it. Of the port's number the listener's address is made: a change replaces a
    # listener by another.
    spec = {"selector": {"app": "client"}, "ports": [{"port": port, "targetPort": 9000}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"churn-{number}"}, "spec": spec}
