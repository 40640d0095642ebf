"""A real API server for the tests marked `apiserver`, and what is needed to hurt it."""

import asyncio
import hashlib
import json
import os
import re
import signal
import urllib.request
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cluster import apiserver
from cluster.apiserver import ApiServer
from kube.apply import create
from kube.client import Api, connect

# Servers die with the *thread* that started them (prctl(2), PR_SET_PDEATHSIG), so a restart must not happen in a
# thread of an event loop's own pool, which ends with its test.
_RESTARTER = ThreadPoolExecutor(1, thread_name_prefix="restart")


async def restart(server: ApiServer) -> None:
    """Starts the killed API server again, on the same data, while the event loop goes on."""
    await asyncio.get_running_loop().run_in_executor(_RESTARTER, server.restart)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with apiserver.start(tmp_path_factory.mktemp("apiserver")) as running:
        yield running


@pytest.fixture
async def api(server: ApiServer) -> AsyncIterator[Api]:
    async with connect(kubeconfig=str(server.kubeconfig)) as client:
        yield client


@pytest.fixture
async def namespace(api: Api, request: pytest.FixtureRequest) -> str:
    """A namespace of this test alone."""
    name = re.sub("[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())
    name = f"{name[:40].strip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    await create(api, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, manager="test")
    return name


def config_map(name: str, namespace: str, **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": data,
    }


def compact(server: ApiServer) -> None:
    """Makes etcd forget every revision but the last, through its JSON gateway."""
    base = f"http://127.0.0.1:{server.plane.ports.etcd}/v3/kv"

    def call(what: str, body: dict[str, Any]) -> dict[str, Any]:
        with urllib.request.urlopen(f"{base}/{what}", data=json.dumps(body).encode(), timeout=60) as answer:
            return json.load(answer)

    revision = call("range", {"key": "AA=="})["header"]["revision"]
    call("compaction", {"revision": revision, "physical": True})


def signal_server(server: ApiServer, number: signal.Signals) -> None:
    """SIGSTOP: the API server keeps its connections but answers nobody, until SIGCONT."""
    process = server.table.get("kube-apiserver")
    assert process is not None
    os.kill(process.pid, number)


async def eventually(what: str, condition: Any, *, within_s: float = 240.0) -> None:
    """Waits until `condition()` holds; fails naming `what` otherwise."""
    try:
        async with asyncio.timeout(within_s):
            while not condition():  # noqa: ASYNC110 - what is waited for happens in another process
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"not within {within_s:.0f} s: {what}")


def kubeconfig_with(path: Path, server: ApiServer, user: dict[str, Any]) -> Path:
    """The administrator's kubeconfig with another user."""
    document = json.loads(server.kubeconfig.read_text())
    document["users"][0]["user"] = user
    path.write_text(json.dumps(document))
    return path
