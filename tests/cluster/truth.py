"""Workloads of every kind with a server that does as it is told, clients who count, and what the proxies counted."""

import asyncio
import json
import math
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from kube.client import connect
from mesh import names
from telemetry.measurement import Measurement
from telemetry.rows import Kind, Row, table
from telemetry.scrape import Look, Meter, between
from telemetry.workloads import PodFacts
from tests.cluster.kubectl import DEADLINE_S, OPTED_IN, Object, Space, eventually, is_ready, manifest, space, tell
from tests.fixtures_cluster import RunningCluster

OBSERVED: Final = {f"{names.SETTING_PREFIX}inbound": "observed"}
# One connection for all requests, or one for each; a line of JSON: status and milliseconds of each.
LOADER: Final = """
import http.client, json, sys, time
host, port, path, times, keep = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5] == "keep"
connection, answers = None, []
for _ in range(times):
    started = time.monotonic()
    connection = connection or http.client.HTTPConnection(host, port, timeout=300)
    connection.request("GET", path, headers={} if keep else {"Connection": "close"})
    answer = connection.getresponse()
    answer.read()
    answers.append((answer.status, (time.monotonic() - started) * 1000))
    if not keep:
        connection.close()
        connection = None
print(json.dumps(answers))
"""
_MINUTE: Final = "* * * * *"


@dataclass(frozen=True, slots=True)
class Scene:
    """`home` opted in, `outside` did not."""

    home: Space
    outside: Space

    async def load(
        self,
        service: str,
        path: str,
        times: int,
        *,
        client: Space | None = None,
        where: Space | None = None,
        port: int = 80,
        keep: bool = True,
    ) -> list[tuple[int, float]]:
        """Status and milliseconds of each request that the client of `client` made to a Service of `where`."""
        host = f"{service}.{(where or self.home).name}.svc.cluster.local"
        command = ("python3", "-c", LOADER, host, str(port), path, str(times), "keep" if keep else "close")
        text = await asyncio.to_thread((client or self.home).exec, "client", *command, container="app")
        answers: list[tuple[int, float]] = [(status, ms) for status, ms in json.loads(text)]
        return answers


def pod_template(cluster: RunningCluster, app: str, **annotations: str) -> Object:
    container = {
        "name": "app",
        "image": cluster.image("testbox"),
        "command": ["python3", "/server/server.py"],
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {
            "httpGet": {"path": "/200/0", "port": 8080},
            "periodSeconds": 2,
            "timeoutSeconds": 10,
            "failureThreshold": 100,
        },
        "resources": {"requests": {"cpu": "1m", "memory": "16Mi"}},
        "volumeMounts": [{"name": "server", "mountPath": "/server"}],
    }
    return {
        "metadata": {"labels": {"app": app}, "annotations": annotations},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
            "volumes": [{"name": "server", "configMap": {"name": "server"}}],
        },
    }


def workload(cluster: RunningCluster, kind: str, app: str, **annotations: str) -> list[Object]:
    """A workload of one pod and the Service before it; port 81 leads to a port that nobody listens on."""
    template = pod_template(cluster, app, **annotations)
    selector = {"matchLabels": {"app": app}}
    job = {"template": template | {"spec": template["spec"] | {"restartPolicy": "Never"}}}
    specs: dict[str, tuple[str, Object]] = {
        "Deployment": ("apps/v1", {"selector": selector, "template": template}),
        "StatefulSet": ("apps/v1", {"selector": selector, "serviceName": app, "template": template}),
        "DaemonSet": ("apps/v1", {"selector": selector, "template": template}),
        "Job": ("batch/v1", job),
        "CronJob": ("batch/v1", {"schedule": _MINUTE, "concurrencyPolicy": "Forbid", "jobTemplate": {"spec": job}}),
    }
    version, spec = specs[kind]
    ports = [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "http-dead", "port": 81, "targetPort": 9999}]
    service = {"selector": {"app": app}, "ports": ports}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": app}, "spec": service},
        {"apiVersion": version, "kind": kind, "metadata": {"name": app}, "spec": spec},
    ]


def a_client(cluster: RunningCluster) -> Object:
    template = pod_template(cluster, "client")
    return {"apiVersion": "v1", "kind": "Pod", **template, "metadata": template["metadata"] | {"name": "client"}}


@contextmanager
def scene(cluster: RunningCluster) -> Generator[Scene]:
    with (
        space(cluster, "counted", labels=OPTED_IN) as home,
        space(cluster, "uncounted") as outside,
    ):
        secret = names.identity_secret_name("default")
        eventually(lambda: home.find("secret", secret), f"Secret {secret}")
        for each in (home, outside):
            each.apply(*manifest(cluster, "telemetry"), a_client(cluster), *workload(cluster, "Deployment", "web"))
        home.apply(
            *workload(cluster, "Deployment", "seen", **OBSERVED),
            *workload(cluster, "StatefulSet", "db"),
            *workload(cluster, "DaemonSet", "agent"),
            *workload(cluster, "Job", "import"),
            *workload(cluster, "CronJob", "nightly"),
        )
        wait_pods(home, {"client", "web", "seen", "db", "agent", "import", "nightly"})
        wait_pods(outside, {"client", "web"})
        made = Scene(home, outside)
        asyncio.run(settled(cluster, made))
        yield made


async def settled(cluster: RunningCluster, made: Scene) -> None:
    """Every proxy has its configuration: before, some requests are plaintext, and the tables would rightly say so.

    And the client's has a connection to each server, kept for a minute: a test's own requests need no handshake, which
    on a busy machine may take so long that they fall back.
    """
    services = ("web", "seen", "db", "agent", "import", "nightly")

    def plain(found: Measurement) -> float:
        return sum(found.book.sent(_client(found, made.home.name)).plaintext.values())

    async with asyncio.timeout(DEADLINE_S):
        while True:
            async with metered(cluster, made.home) as window:
                for service in services:
                    await made.load(service, "/200/0", 1, keep=False)
                found = await window.until(lambda found: _complete(found, made.home.name, len(services)))
            if not plain(found):
                return


def _complete(found: Measurement, namespace: str, requests: int) -> bool:
    """All is counted, histograms included, so that nothing of it comes into a later window."""
    client = found.book.sent(_client(found, namespace)).total
    servers = row(found, Kind.NAMESPACE, namespace, namespace).traffic.total
    return (
        client.requests + client.connections >= requests
        and min(client.latency.total, servers.latency.total) >= client.requests
    )


def sent(found: Measurement, namespace: str) -> float:
    """Requests and connections that the client of the namespace sent."""
    return found.book.sent(_client(found, namespace)).units


def _client(found: Measurement, namespace: str) -> list[PodFacts]:
    return [pod for pod in found.cluster.pods if pod.key == f"{namespace}/client"]


def wait_pods(where: Space, apps: set[str]) -> None:
    def ready() -> bool:
        return {pod["metadata"]["labels"]["app"] for pod in where.pods() if is_ready(pod)} == apps

    eventually(ready, lambda: f"{apps} Ready: {[tell(pod) for pod in where.pods()]}")


@asynccontextmanager
async def metered(cluster: RunningCluster, home: Space) -> AsyncGenerator["Window"]:
    """A window that begins here."""
    async with connect(kubeconfig=str(cluster.kubeconfig)) as api:
        meter = Meter(api)
        loop = asyncio.get_running_loop()
        end = loop.time() + DEADLINE_S
        first = await meter.look()
        # A proxy that does not answer now could not be counted from here.
        while any(pod.startswith(f"{home.name}/") for pod in first.failures):
            assert loop.time() < end, f"proxies that do not answer: {first.failures}"
            first = await meter.look()
        yield Window(meter, first, home.name)


@dataclass(frozen=True, slots=True)
class Window:
    """From the first look to as many more as it takes."""

    meter: Meter
    first: Look
    namespace: str

    async def until(self, complete: Callable[[Measurement], bool]) -> Measurement:
        """The measurement that is complete: proxies count a connection when it ends, histograms some seconds later."""
        loop = asyncio.get_running_loop()
        end = loop.time() + DEADLINE_S
        while True:
            found = between((self.first, await self.meter.look()))
            if complete(found):
                return found
            assert loop.time() < end, f"not within {DEADLINE_S:.0f} s: {numbers(found, self.namespace)}"
            await asyncio.sleep(1)


def row(found: Measurement, kind: Kind, namespace: str, name: str) -> Row:
    rows = table(kind, found.book, found.seconds).rows
    return next(each for each in rows if each.name == name and each.namespace in (namespace, ""))


def numbers(found: Measurement, namespace: str) -> dict[str, Any]:
    """For the message of a failed test."""
    rows = (
        each for kind in Kind for each in table(kind, found.book, found.seconds).rows if each.namespace == namespace
    )
    return {each.name: (each.traffic.total, dict(each.traffic.plaintext)) for each in rows}


def bucket(bounds: tuple[float, ...], value: float) -> tuple[float, float]:
    """The bucket that holds `value`."""
    upper = next(bound for bound in bounds if value <= bound)
    return max((bound for bound in bounds if bound < value), default=0.0), upper if math.isfinite(upper) else bounds[-2]
