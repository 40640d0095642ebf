"""1,000 new ServiceAccounts become 1,000 Secrets: the CA's process against a raw HTTP client doing the same writes.

    python -m bench.secrets_throughput [--rounds 3] [--count 1000]

Both write to one real API server, in turn, with the same concurrency. A round of the CA begins when a namespace full
of ServiceAccounts opts in and ends when its last Secret is there; a round of the client server-side-applies the same
Secrets, made beforehand, to another namespace. Prints the CA's memory with one round's identities as well.
"""

import asyncio
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from bench.budget import Line, report
from bench.options import options
from ca.controller import WORKERS
from cluster import apiserver
from cluster.apiserver import ApiServer
from kube.apply import APPLY_PATCH, create, merge_patch
from kube.client import Api, connect

BUDGET_RATIO = 0.8
BUDGET_RSS_MB = 110
CONTROL_PLANE = "autotls"
Obj = dict[str, Any]


def main() -> None:
    given = options(__doc__, rounds=3, count=1000)
    with tempfile.TemporaryDirectory() as folder, apiserver.start(Path(folder)) as server:
        asyncio.run(run(server, Path(folder), given.rounds, given.count))


async def run(server: ApiServer, folder: Path, rounds: int, count: int) -> None:
    async with connect(kubeconfig=str(server.kubeconfig)) as api:
        await create(api, namespace_object(CONTROL_PLANE), manager="bench")
        with ca_process(server, folder) as process:
            # The first round warms both sides up and gives the Secrets that the client repeats.
            await ca_round(api, "warm", count)
            rss_mb = resident_mb(process.pid)
            templates = await secrets_of(api, "warm")
            await client_round(server, api, "warm-client", templates)
            ours: list[float] = []
            theirs: list[float] = []
            for number in range(rounds):
                ours.append(count / await ca_round(api, f"ca-{number}", count))
                theirs.append(count / await client_round(server, api, f"client-{number}", templates))
    value, baseline = statistics.median(ours), statistics.median(theirs)
    against = "raw client, server-side apply"
    report(
        Line("Secrets per second, CA", value, "", BUDGET_RATIO, baseline, against, relative=True, at_least=True),
        Line(f"CA RSS at {count} identities", rss_mb, "MB", BUDGET_RSS_MB),
    )


@contextmanager
def ca_process(server: ApiServer, folder: Path) -> Generator[subprocess.Popen[bytes]]:
    """`python -m ca` while the context lasts."""
    (folder / "config.yaml").write_text(f"controlPlaneNamespace: {CONTROL_PLANE}\n")
    environment = {key: value for key, value in os.environ.items() if key != "KUBERNETES_SERVICE_HOST"}
    environment |= {"AUTOTLS_CONFIG": str(folder / "config.yaml"), "KUBECONFIG": str(server.kubeconfig)}
    environment |= {"AUTOTLS_HEALTH_PORT": "0"}
    with (folder / "ca.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "ca"], env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def resident_mb(pid: int) -> float:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return int(fields["VmRSS"].split()[0]) / 1024


async def ca_round(api: Api, namespace: str, count: int) -> float:
    """Seconds from the opt-in to the last Secret."""
    await create(api, namespace_object(namespace), manager="bench")
    accounts = [account_object(namespace, f"workload-{number:04}") for number in range(count)]
    await at_once([lambda a=account: create(api, a, manager="bench") for account in accounts])
    label = {"metadata": {"labels": {"autotls.io/inject": "enabled"}}}
    started = time.perf_counter()
    await merge_patch(api, f"/api/v1/namespaces/{namespace}", label, manager="bench")
    await until_secrets(api, namespace, count)
    return time.perf_counter() - started


async def until_secrets(api: Api, namespace: str, count: int) -> None:
    """Counts by the remainder of a list of one: the cheapest question there is."""
    while True:
        body = await api.request("GET", f"/api/v1/namespaces/{namespace}/secrets", query=(("limit", "1"),))
        answer = json.loads(body)
        if len(answer["items"]) + answer["metadata"].get("remainingItemCount", 0) >= count:
            return
        await asyncio.sleep(0.05)


async def secrets_of(api: Api, namespace: str) -> list[Obj]:
    """The Secrets that the CA made, as they would be applied; labelled as another installation's, so that the CA
    does not look at them."""
    answer = json.loads(await api.request("GET", f"/api/v1/namespaces/{namespace}/secrets", timeout_s=60))
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": item["metadata"]["name"],
                "labels": item["metadata"]["labels"] | {"autotls.io/control-plane": "another"},
                "annotations": item["metadata"]["annotations"],
            },
            "type": item["type"],
            "data": item["data"],
        }
        for item in answer["items"]
    ]


async def client_round(server: ApiServer, api: Api, namespace: str, templates: list[Obj]) -> float:
    """Seconds for a bare aiohttp client to apply all Secrets, bodies and URLs made beforehand."""
    await create(api, namespace_object(namespace), manager="bench")
    bodies = [
        (
            item["metadata"]["name"],
            msgspec.json.encode(item | {"metadata": item["metadata"] | {"namespace": namespace}}),
        )
        for item in templates
    ]
    context = ssl.create_default_context(cafile=str(server.authority))
    admin = server.plane.pair("admin")
    context.load_cert_chain(admin.certificate, admin.key)
    connector = aiohttp.TCPConnector(ssl=context, limit=WORKERS)
    async with aiohttp.ClientSession(connector=connector, headers={"Content-Type": APPLY_PATCH}) as session:

        async def put(name: str, body: bytes) -> None:
            url = f"{server.url}/api/v1/namespaces/{namespace}/secrets/{name}?fieldManager=bench&force=true"
            async with session.patch(url, data=body) as response:
                await response.read()
                response.raise_for_status()

        started = time.perf_counter()
        await at_once([lambda n=name, b=body: put(n, b) for name, body in bodies])
        return time.perf_counter() - started


async def at_once(jobs: list[Callable[[], Awaitable[object]]]) -> None:
    """Runs all jobs, WORKERS at a time."""
    waiting = iter(jobs)

    async def worker() -> None:
        for job in waiting:
            await job()

    async with asyncio.TaskGroup() as group:
        for _ in range(WORKERS):
            group.create_task(worker())


def namespace_object(name: str) -> Obj:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def account_object(namespace: str, name: str) -> Obj:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}


if __name__ == "__main__":
    main()
