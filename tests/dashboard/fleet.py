"""A mesh on this machine's loopback: pods in a fake API server, and proxies that answer with growing counters.

Each proxy's text has the shape of a real one's (tests/telemetry holds the parser to recorded ones). Counters grow by
what `rates` say for every second that the clock of the test has moved.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from dashboard.scrape import Target
from mesh import names, series
from telemetry.workloads import PodFacts

BUCKETS_US = (500, 1000, 2500, 5000, 10000, 25000, 50000, 100000)
TRUST_DOMAIN = "cluster.local"


@dataclass
class Call:
    """What a pod's proxy sends to a workload: requests per second, by mutual TLS or with a reason."""

    to: str
    rps: float
    reason: str = ""
    authority: str = ""


@dataclass
class FakePod:
    namespace: str
    kind: str
    workload: str
    number: int = 0
    meshed: bool = True
    inbound: str = "direct"
    calls: list[Call] = field(default_factory=list[Call])

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.kind}/{self.workload}"

    @property
    def name(self) -> str:
        return f"{self.workload}-{self.number}"

    @property
    def path(self) -> str:
        return f"{self.namespace}/{self.name}"

    def manifest(self, address: str) -> dict[str, Any]:
        owner = {"kind": self.kind.capitalize(), "name": self.workload, "controller": True, "uid": "u"}
        labels: dict[str, str] = {"app": self.workload}
        if self.kind == "deployment":
            owner |= {"kind": "ReplicaSet", "name": f"{self.workload}-5d4f"}
            labels["pod-template-hash"] = "5d4f"
        status: dict[str, Any] = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
        spec: dict[str, Any] = {"serviceAccountName": self.workload, "containers": [{"name": "app"}]}
        if self.meshed:
            labels[names.MESH_LABEL] = names.DEFAULT_CONTROL_PLANE_NAMESPACE
            environment = [{"name": "AUTOTLS_INBOUND", "value": self.inbound}]
            spec["initContainers"] = [{"name": names.PROXY_CONTAINER, "restartPolicy": "Always", "env": environment}]
            status["initContainerStatuses"] = [{"name": names.PROXY_CONTAINER, "ready": True, "state": {"running": {}}}]
        metadata = {
            "name": self.name, "namespace": self.namespace, "labels": labels, "ownerReferences": [owner],
            "annotations": {names.IDENTITY_ANNOTATION: identity(self.key)} if self.meshed else {},
        }  # fmt: skip
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


def identity(key: str) -> str:
    namespace, _, name = key.split("/")
    return f"spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{name}"


class Fleet:
    """All pods, and the one server that answers for all proxies. `clock` is in seconds."""

    def __init__(self, pods: Iterable[FakePod], clock: Callable[[], float]) -> None:
        self.pods = {pod.path: pod for pod in pods}
        self.by_workload: dict[str, list[FakePod]] = {}
        for pod in self.pods.values():
            self.by_workload.setdefault(pod.key, []).append(pod)
        # Workload -> who calls it by mutual TLS, and how often.
        self._callers: dict[str, dict[str, float]] = {}
        for pod in self.pods.values():
            for call in pod.calls:
                if not call.reason:
                    callers = self._callers.setdefault(call.to, {})
                    callers[pod.key] = callers.get(pod.key, 0.0) + call.rps
        self._clock, self._began = clock, clock()
        self.silent: set[str] = set()
        self.leaf_ends = 2_000_000_000.0
        self.port = 0

    def manifests(self) -> list[dict[str, Any]]:
        return [pod.manifest(address_of(number)) for number, pod in enumerate(self.pods.values())]

    def target(self, pod: PodFacts) -> Target:
        return Target(pod.uid, "127.0.0.1", self.port, f"/{pod.key}")

    def text(self, pod: FakePod) -> str:
        """What its proxy answers now."""
        elapsed = self._clock() - self._began
        lines = [f"envoy_server_uptime{{}} {int(1000 + elapsed)}"]
        lines.append(
            "envoy_listener_ssl_certificate_expiration_unix_time_seconds"
            f'{{envoy_tls_certificate="leaf",envoy_listener_address="inbound_mtls"}} {self.leaf_ends:.0f}'
        )
        for call in pod.calls:
            lines += _http(self._outbound(call), call.rps * elapsed, peer="" if call.reason else identity(call.to))
        for sender, rps in self._callers.get(pod.key, {}).items():
            labels = {
                series.DIR: series.INBOUND, series.TLS: "TLSv1.2", series.PEER: identity(sender), series.PORT: "8080",
            }  # fmt: skip
            lines += _http(labels, rps * elapsed / len(self.by_workload[pod.key]))
        return "\n".join(lines) + "\n"

    def _outbound(self, call: Call) -> dict[str, str]:
        namespace, _, name = call.to.split("/") if call.to.count("/") == 2 else ("", "", call.to)
        passed = call.reason == "external"
        return {
            series.DIR: series.OUTBOUND,
            series.TLS: "" if call.reason else "TLSv1.2",
            series.SVC: series.PASSTHROUGH if passed else f"{namespace}/{name}:80",
            series.DST: call.to,
            series.REASON: "" if passed else call.reason,
        }

    @asynccontextmanager
    async def answering(self) -> AsyncGenerator[None, None]:
        """Serves `/NAMESPACE/NAME` of every proxy on one port of the loopback."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while head := await reader.readline():
                while (await reader.readline()).strip():
                    pass
                path = head.split()[1].decode().strip("/")
                if path in self.silent or path not in self.pods:
                    writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
                else:
                    body = self.text(self.pods[path]).encode()
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()


def address_of(number: int) -> str:
    return f"10.{number // 65536}.{number // 256 % 256}.{number % 256}"


def _http(labels: dict[str, str], count: float, *, peer: str = "") -> list[str]:
    """The series of `count` requests, of which one in a hundred failed and each took 1.5 to 4 ms."""
    own = {**labels, **({series.PEER: peer} if peer else {})}
    failed = int(count) // 100
    found = [
        _line(series.REQUESTS, {**own, series.PROTO: "HTTP/1.1", series.CODE: "200"}, int(count) - failed),
        _line(series.RECEIVED, labels, int(count) * 120),
        _line(series.SENT, labels, int(count) * 800),
    ]
    if failed:
        found.append(_line(series.REQUESTS, {**own, series.PROTO: "HTTP/1.1", series.CODE: "503"}, failed))
    for bound in BUCKETS_US:
        share = 0.0 if bound < 1500 else 0.9 if bound < 4000 else 1.0
        found.append(_line(f"{series.REQUEST_US}_bucket", {**labels, "le": str(bound)}, int(count * share)))
    found.append(_line(f"{series.REQUEST_US}_bucket", {**labels, "le": "+Inf"}, int(count)))
    return found


def _line(name: str, labels: dict[str, str], value: float) -> str:
    text = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items())
    return f"{series.EXPOSED}{name}{{{text}}} {value:g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def shop() -> list[FakePod]:
    """A small mesh with one of everything."""
    return [
        FakePod("ingress", "deployment", "gateway", calls=[Call("shop/deployment/web", 40)]),
        FakePod("shop", "deployment", "web", 0,
                calls=[Call("shop/deployment/cart", 20), Call("shop/deployment/catalog", 30)]),
        FakePod("shop", "deployment", "web", 1, calls=[Call("shop/deployment/checkout", 6)]),
        FakePod("shop", "deployment", "cart", calls=[Call("data/deployment/redis", 25)]),
        FakePod("shop", "deployment", "catalog", calls=[Call("data/statefulset/postgres", 12)]),
        FakePod(
            "shop", "deployment", "checkout",
            calls=[Call("data/statefulset/postgres", 4, "unreachable"), Call("shop/deployment/payment", 5)],
        ),
        FakePod("shop", "deployment", "payment", inbound="observed",
                calls=[Call("legacy/deployment/billing", 3, "not_meshed"), Call("203.0.113.7:443", 1, "external")]),
        FakePod("data", "statefulset", "postgres"),
        FakePod("data", "deployment", "redis"),
        FakePod("legacy", "deployment", "billing", meshed=False),
    ]  # fmt: skip


def large(workloads: int, pods_each: int = 1) -> list[FakePod]:
    """That many workloads in ten namespaces, each calling three others."""
    keys = [(f"team-{number % 10}", f"service-{number:03d}") for number in range(workloads)]
    reasons = ("", "", "", "handshake_failed")
    found: list[FakePod] = []
    for number, (namespace, name) in enumerate(keys):
        callees = sorted({(number * 7 + step * 13) % workloads for step in (1, 2, 3)} - {number})
        calls = [
            Call(f"{keys[callee][0]}/deployment/{keys[callee][1]}", 2 + number % 9, reasons[(number + callee) % 4])
            for callee in callees
        ]
        found += [FakePod(namespace, "deployment", name, each, calls=calls) for each in range(pods_each)]
    return found
