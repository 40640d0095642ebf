"""What `autotls stat` over a hundred pods costs: wall time beyond the window, and CPU of the command.

    python -m bench.stat [--pods 100] [--rounds 3]

The command runs as people run it, against an API server of our own on the loopback (HTTPS) that lists the pods and
answers for their proxies, each with an exposition of about 50 kB. The server needs CPU of its own on the same machine,
which a cluster's would not take from the command. Baseline: the same command with an option that makes it end after
its imports and the connection, `autotls version`.
"""

import argparse
import asyncio
import base64
import json
import os
import resource
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from bench.budget import Line, report
from bench.certificates import write_serving_pair
from mesh import names

WINDOW_S: Final = 1
WALL_BUDGET_S: Final = 2.5
CPU_BUDGET_S: Final = 1.5
# Envoy's default bounds.
BOUNDS: Final = (0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000)


def exposition(pod: int, look: int, pods: int) -> bytes:
    """What a proxy that talks to a dozen workloads says; every series has grown since the look before."""
    lines = [f"envoy_server_uptime{{}} {1000 + look * WINDOW_S}"]
    for number in range(12):
        peer = (pod + number) % pods // 2
        to = f'dir="outbound",dst="shop/deployment/app-{peer}",reason=""'
        who = f'dir="inbound",peer="spiffe://cluster.local/ns/shop/sa/app-{peer}",port="8080"'
        for labels, latency in ((to, f'{to},svc="shop/app-{peer}:80",authority="app-{peer}.shop"'), (who, who)):
            rest = f'{labels},tls="TLSv1.2",proto="HTTP/1.1"'
            lines += [f'envoy_autotls_rq{{{rest},code="{code}"}} {look * 100 + code}' for code in (200, 404, 503)]
            lines += [f"envoy_autotls_{name}{{{labels}}} {look * 10_000 + 1}" for name in ("rx", "tx")]
            lines += [
                f'envoy_autotls_rq_us_bucket{{{latency},le="{bound}"}} {look * 100 * i}'
                for i, bound in enumerate(BOUNDS)
            ]
            lines.append(f'envoy_autotls_rq_us_bucket{{{latency},le="+Inf"}} {look * 100 * len(BOUNDS)}')
    return ("\n".join(lines) + "\n").encode()


def pod_object(number: int) -> dict[str, object]:
    name = f"app-{number // 2}"
    env = {"AUTOTLS_INBOUND": "direct", "AUTOTLS_REDIRECT": "on"}
    proxy = {"name": names.PROXY_CONTAINER, "env": [{"name": key, "value": value} for key, value in env.items()]}
    owner = {"kind": "ReplicaSet", "name": f"{name}-7d9c", "uid": name, "controller": True}
    return {
        "metadata": {
            "name": f"{name}-7d9c-{number}",
            "namespace": "shop",
            "uid": f"uid-{number}",
            "labels": {names.MESH_LABEL: "autotls", "app": name, "pod-template-hash": "7d9c"},
            "ownerReferences": [owner],
        },
        "spec": {"containers": [{"name": "app"}], "initContainers": [proxy], "serviceAccountName": name},
        "status": {
            "phase": "Running",
            "podIP": f"10.0.{number // 200}.{number % 200 + 2}",
            "initContainerStatuses": [{"name": names.PROXY_CONTAINER, "state": {"running": {}}}],
        },
    }


def serve(folder: Path, pods: int) -> None:
    """The API server, on a port that it writes into `folder`/port."""
    looks: dict[str, int] = {}
    listed = {"metadata": {"resourceVersion": "1"}, "items": [pod_object(number) for number in range(pods)]}
    empty: dict[str, Any] = {"metadata": {"resourceVersion": "1"}, "items": []}
    # Made beforehand: a real proxy does not cost the machine of the command anything either.
    texts = [[exposition(pod, look, pods) for look in range(2)] for pod in range(pods)]

    async def listing(request: web.Request) -> web.Response:
        return web.json_response(listed if request.path.endswith("/pods") else empty)

    async def metrics(request: web.Request) -> web.Response:
        pod = request.match_info["pod"].partition(":")[0]
        look = looks.get(pod, 0)
        looks[pod] = look + 1
        return web.Response(body=texts[int(pod.rpartition("-")[2])][look % 2])

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/api/v1/namespaces/shop/pods/{pod}/proxy/metrics", metrics)
        app.router.add_get("/{anything:.*}", listing)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        port = runner.addresses[0][1]
        (folder / "port.new").write_text(str(port))
        (folder / "port.new").rename(folder / "port")
        await asyncio.Event().wait()

    asyncio.run(run())


def kubeconfig(folder: Path) -> Path:
    path = folder / "kubeconfig"
    authority = base64.b64encode((folder / "tls.crt").read_bytes()).decode()
    server = f"https://127.0.0.1:{(folder / 'port').read_text()}"
    path.write_text(
        json.dumps(
            {
                "clusters": [{"name": "x", "cluster": {"server": server, "certificate-authority-data": authority}}],
                "users": [{"name": "x", "user": {"token": "none"}}],
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x", "namespace": "shop"}}],
                "current-context": "x",
            }
        )
    )
    return path


def timed(*arguments: str) -> tuple[float, float, str]:
    """Wall seconds, CPU seconds and output of the command. Raises CalledProcessError."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    argv = [sys.executable, "-m", "cli.main", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.pods)
        return
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        write_serving_pair(folder)
        argv = [sys.executable, "-m", "bench.stat", f"--serve={folder}", f"--pods={options.pods}"]
        with subprocess.Popen(argv, env=os.environ) as server:
            try:
                measure(folder, server, options.rounds, options.pods)
            finally:
                server.kill()


def measure(folder: Path, server: "subprocess.Popen[bytes]", rounds: int, pods: int) -> None:
    while not (folder / "port").exists():
        if server.poll() is not None:
            raise SystemExit("the API server of the benchmark ended")
        time.sleep(0.1)
    flag = f"--kubeconfig={kubeconfig(folder)}"
    walls: list[float] = []
    cpus: list[float] = []
    bases: list[float] = []
    for _ in range(rounds):
        wall, cpu, output = timed("stat", "deploy", "-A", f"-t{WINDOW_S}s", flag)
        assert output.count("100.00%*") == pods // 2, output
        walls.append(wall - WINDOW_S)
        cpus.append(cpu)
        bases.append(timed("version", flag)[1])
    size = len(exposition(0, 1, pods)) / 1000
    report(
        Line(
            f"stat over {pods} pods, {size:.0f} kB each: wall beyond the window",
            statistics.median(walls),
            "s",
            WALL_BUDGET_S,
        ),
        Line(
            "  CPU of the command",
            statistics.median(cpus),
            "s",
            CPU_BUDGET_S,
            statistics.median(bases),
            "autotls version",
        ),
    )


if __name__ == "__main__":
    main()
