"""`python -m bench.dashboard`: what the web page costs: memory at 500 meshed pods, and time to render 200 workloads.

The real process (`python -m dashboard`) against an API server that only lists, and 500 proxies on addresses of this
machine's loopback, each at port 15120, whose counters grow. Its memory is read after it has looked at them for longer
than its window, while pages are asked for. Rendering is CPU time of this process, beside a page of 20 workloads.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web

from bench.budget import Line, report
from bench.options import options
from cluster.ports import reserved
from dashboard import pages
from dashboard.model import Snapshot
from dashboard.pages import Frame
from dashboard.views import Choice
from mesh import names
from tests.dashboard import fleet, meshes

PODS: Final = 500
RSS_BUDGET_MB: Final = 150.0
RENDER_BUDGET_MS: Final = 300.0
NOW: Final = datetime(2026, 11, 26, 12, tzinfo=UTC)

Render = Callable[[Snapshot, Frame], str]
VIEWS: Final[dict[str, Render]] = {
    "overview": pages.overview,
    "workloads": lambda shot, frame: pages.workloads(shot, frame, Choice()),
    "topology": lambda shot, frame: pages.topology(shot, frame, Choice()),
    "topology, every workload a box": lambda shot, frame: pages.topology(shot, frame, Choice(by="workload")),
    "certificates": pages.certificates,
}


def render_lines(rounds: int) -> list[Line]:
    """For each page, the median CPU time with 200 workloads beside that with 20."""
    small, large, frame = meshes.large(20), meshes.large(200), Frame(NOW)
    found: list[Line] = []
    for name, render in VIEWS.items():
        cost: dict[int, list[float]] = {20: [], 200: []}
        render(large, frame)
        for _ in range(rounds):
            for count, snapshot in ((20, small), (200, large)):
                began = time.process_time()
                render(snapshot, frame)
                cost[count].append((time.process_time() - began) * 1000)
        medians = {count: sorted(values)[len(values) // 2] for count, values in cost.items()}
        what = f"dashboard: {name}, 200 workloads"
        found.append(Line(what, medians[200], "ms", RENDER_BUDGET_MS, baseline=medians[20], against="20 workloads"))
    return found


@asynccontextmanager
async def cluster(mesh: fleet.Fleet) -> AsyncGenerator[str, None]:
    """The URL of an API server that lists the pods of `mesh`, whose proxies answer at 127.1.x.y:15120."""
    manifests = [pod.manifest(_address(number)) for number, pod in enumerate(mesh.pods.values())]
    for number, manifest in enumerate(manifests):
        manifest["metadata"] |= {"uid": f"uid-{number}", "resourceVersion": "1"}
    pods = {_address(number): pod for number, pod in enumerate(mesh.pods.values())}

    async def listed(request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            await asyncio.sleep(3600)
        items: list[dict[str, Any]] = manifests if request.path.endswith("/pods") else []
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": items})

    async def metrics(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        address = request.transport.get_extra_info("sockname")[0]
        return web.Response(text=mesh.text(pods[address]))

    api, proxies = web.Application(), web.Application()
    api.router.add_get("/{path:.*}", listed)
    proxies.router.add_get("/metrics", metrics)
    runners = [web.AppRunner(each, access_log=None, shutdown_timeout=0.1) for each in (api, proxies)]
    for runner in runners:
        await runner.setup()
    await web.TCPSite(runners[0], "127.0.0.1", 0).start()
    port = runners[0].addresses[0][1]
    for address in pods:
        await web.TCPSite(runners[1], address, names.STATUS_PORT).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        for runner in runners:
            await runner.cleanup()


def _address(number: int) -> str:
    return f"127.1.{number // 250}.{number % 250 + 1}"


async def memory_lines(seconds: float, folder: Path) -> list[Line]:
    """The process's memory at 500 pods beside that at 20."""
    small = await _rss_mb(20, seconds / 3, folder)
    large = await _rss_mb(PODS, seconds, folder)
    return [Line(f"dashboard: memory at {PODS} pods", large, "MB", RSS_BUDGET_MB, baseline=small, against="20 pods")]


async def _rss_mb(count: int, seconds: float, folder: Path) -> float:
    mesh = fleet.Fleet(fleet.large(count // 2, pods_each=2), time.monotonic)
    config = folder / "config.yaml"
    config.write_text("{}")
    async with cluster(mesh) as url:
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{"name": "bench", "cluster": {"server": url}}], "users": [{"name": "bench", "user": {}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        }))  # fmt: skip
        with reserved() as port, reserved() as health, (folder / "dashboard.log").open("wb") as log:
            environment = {
                **os.environ, "KUBECONFIG": str(kubeconfig), "AUTOTLS_CONFIG": str(config),
                "AUTOTLS_DASHBOARD_PORT": str(port), "AUTOTLS_HEALTH_PORT": str(health),
            }  # fmt: skip
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "dashboard", env=environment, stdout=log, stderr=log
            )
            try:
                return await _watched(process.pid, port, health, seconds)
            finally:
                process.terminate()
                await process.wait()


async def _watched(pid: int, port: int, health: int, seconds: float) -> float:
    """The largest resident memory within `seconds` after it is ready, pages being asked for every two seconds."""
    highest = 0.0
    async with aiohttp.ClientSession() as session:
        ready = time.monotonic() + 60
        while not await _is_ready(session, health):
            if time.monotonic() > ready:
                raise RuntimeError("the dashboard is not ready after 60 s")
            await asyncio.sleep(0.2)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for path in ("/", "/workloads", "/topology", "/certificates"):
                async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
                    assert answer.status == 200, await answer.text()
                    await answer.read()
            highest = max(highest, _resident_mb(pid))
            await asyncio.sleep(2)
    return highest


async def _is_ready(session: aiohttp.ClientSession, health: int) -> bool:
    try:
        async with session.get(f"http://127.0.0.1:{health}/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


def _resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS")


def main() -> int:
    given = options(__doc__, seconds=60.0, rounds=9)
    with tempfile.TemporaryDirectory() as folder:
        memory = asyncio.run(memory_lines(given.seconds, Path(folder)))
    report(*memory, *render_lines(given.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
