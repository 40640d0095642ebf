"""The real controller on the API server in memory, under virtual time: an hour passes in milliseconds."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar

import msgspec

from ca.controller import Controller
from ca.edge import Edge
from ca.policy import Keep, judge
from ca.secret import DECODE_SECRET, OwnSecret
from ca.trust import Trust
from mesh import names
from mesh.config import IdentityConfig, MeshConfig
from tests.ca.authorities import T0, TRUST_DOMAIN
from tests.fakes.clock import now, run_virtual
from tests.fakes.kubeapi import FakeApi

T = TypeVar("T")
CONFIG = MeshConfig()
Obj = dict[str, Any]


def clock() -> datetime:
    """Virtual time as a date."""
    return T0 + timedelta(seconds=now())


class Cluster:
    """A cluster with a CA; its methods are what users and faults do to it."""

    def __init__(self, config: MeshConfig = CONFIG) -> None:
        self.config = config
        self.api = FakeApi()
        self.controller: Controller | None = None
        self.namespace("autotls")

    @asynccontextmanager
    async def leading(self) -> AsyncGenerator[Controller, None]:
        """A CA that leads while the context lasts."""
        controller = Controller(Edge.of(self.api, self.config, clock), self.api, instance="ca-0", jitter=lambda: 0.5)
        self.controller = controller
        task = asyncio.create_task(controller.run())
        try:
            await settle()
            yield controller
            assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.wait({task})

    def namespace(self, name: str, **labels: str) -> None:
        self.api.seed(obj("v1", "Namespace", name, labels={k.replace("__", "/"): v for k, v in labels.items()}))

    def opted_in(self, name: str) -> None:
        self.api.seed(obj("v1", "Namespace", name, labels={names.INJECT_LABEL: "enabled"}))

    def account(self, namespace: str, name: str) -> None:
        self.api.seed(obj("v1", "ServiceAccount", name, namespace))

    def pod(self, namespace: str, name: str, account: str = "default", **more: Any) -> None:
        self.api.seed(a_pod(namespace, name, account, **more))

    def secret(self, namespace: str, account: str) -> OwnSecret | None:
        """The identity Secret; None when there is none."""
        path = f"/api/v1/namespaces/{namespace}/secrets/{names.identity_secret_name(account)}"
        try:
            return DECODE_SECRET.decode(msgspec.json.encode(self.api.get(path)))
        except KeyError:
            return None

    def judged(self, namespace: str, account: str) -> bool:
        """True when the Secret is there and good in the eyes of policy, now."""
        secret = self.secret(namespace, account)
        subject = TRUST_DOMAIN.workload(namespace, account)
        data = secret.decoded() if secret else None
        lifetimes = Edge.of(self.api, self.config, clock).lifetimes
        return isinstance(judge(data, subject, self.trust.bundle, lifetimes, clock()), Keep)

    @property
    def trust(self) -> Trust:
        assert self.controller is not None and self.controller.keeper.trust is not None
        return self.controller.keeper.trust

    def events(self, reason: str) -> list[Obj]:
        return [event for event in self.api.listed("events") if event.get("reason") == reason]

    def writes(self) -> list[tuple[str, str]]:
        """What was written so far, Events aside."""
        return [r for r in self.api.requests if r[0] not in ("GET", "WATCH") and "/events" not in r[1]]


def obj(api_version: str, kind: str, name: str, namespace: str = "", labels: dict[str, str] | None = None) -> Obj:
    metadata: Obj = {"name": name, **({"namespace": namespace} if namespace else {}), "labels": labels or {}}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def a_pod(
    namespace: str,
    name: str,
    account: str = "default",
    *,
    labels: dict[str, str] | None = None,
    sidecar: bool = False,
    phase: str = "Running",
    host_network: bool = False,
) -> Obj:
    pod = obj("v1", "Pod", name, namespace, labels)
    sidecars = [{"name": names.PROXY_CONTAINER, "restartPolicy": "Always"}] if sidecar else []
    containers = [{"name": "app", "image": "app"}]
    pod["spec"] = {"serviceAccountName": account, "containers": containers, "initContainers": sidecars}
    pod["spec"]["hostNetwork"] = host_network
    pod["status"] = {"phase": phase}
    return pod


async def settle(seconds: float = 0.5) -> None:
    """Lets everything that is due now happen."""
    await asyncio.sleep(seconds)


def virtual(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Runs an async test under virtual time."""

    async def main() -> None:
        await test()

    def run() -> None:
        run_virtual(main())

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    run.__module__ = test.__module__
    return run


def short_lives(**changes: Any) -> MeshConfig:
    values = {"leaf_lifetime": "60s", "issuer_lifetime": "300s", "root_lifetime": "3000s", **changes}
    return MeshConfig(identity=IdentityConfig(**values))
