"""The API server of bench.stat: lists pods, and answers for their proxies. A process of its own, ended by a kill."""

import asyncio
import ssl
import sys
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from mesh import names

# Seconds between the two looks at a proxy.
WINDOW_S: Final = 1
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


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
