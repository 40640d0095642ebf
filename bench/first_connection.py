"""`python -m bench.first_connection`: is a new pod's first connection mutual TLS? On the cluster of `make up`.

The application's first act is to print the time, its second a request to a meshed Service. Whether that was mutual TLS
is what the pod's own proxy counted. A pod with a no-op sidecar goes before every fifth, for what the sidecar adds to
the start. One pod exists at a time, beside the server.
"""

import asyncio
import json
import os
import statistics
import sys
from typing import Any, Final

from bench.budget import Line, report
from bench.options import options
from bench.pod_start import BUDGET_MS, DEADLINE_S, INJECTED, NO_OP, Place, delete, place_on, pod, start_ms
from cluster import lifecycle
from cluster.errors import ClusterError
from cluster.layout import DEFAULT_NAME, Cache, ClusterName
from kube.errors import ApiError
from mesh import names

SERVER: Final = "server"
_POLL_S: Final = 0.05
_EVERY: Final = 5
_FAILED: Final = "failed"
_ASK: Final = (
    f"date +%s%N; curl --silent --fail --max-time 20 http://{SERVER}/ >/dev/null || echo {_FAILED}; exec sleep 600"
)


async def serve(place: Place) -> None:
    """A meshed pod behind a Service, ready and known to discovery: a trial pod reaches it by mutual TLS."""
    body = pod(place, INJECTED, SERVER, "exec testbox-server")
    body["metadata"]["labels"]["app"] = SERVER
    body["spec"]["containers"][0] |= {
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"port": 8080}, "periodSeconds": 1},
    }
    service: dict[str, Any] = {
        "metadata": {"name": SERVER},
        "spec": {"selector": {"app": SERVER}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    await place.api.request("POST", place.pods, body=json.dumps(body).encode())
    await place.api.request("POST", place.pods.removesuffix("pods") + "services", body=json.dumps(service).encode())
    async with asyncio.timeout(DEADLINE_S):
        while True:
            status = json.loads(await place.api.request("GET", f"{place.pods}/{SERVER}"))["status"]
            if any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", ())):
                break
            await asyncio.sleep(_POLL_S)
    for number in range(20):
        if (await trial(place, f"trial-{number}"))[1]:
            return
    raise SystemExit("no pod reaches the server by mutual TLS")


async def trial(place: Place, name: str) -> tuple[float, bool]:
    """Milliseconds to the application's start, and whether its first connection was mutual TLS. Raises TimeoutError."""
    taken = await start_ms(place, INJECTED, name, _ASK, keep=True)
    try:
        async with asyncio.timeout(DEADLINE_S):
            return taken, await _first(place, name)
    finally:
        await delete(place, name)


async def _first(place: Place, name: str) -> bool:
    """Whether the pod's only request or connection was mutual TLS, once its proxy has counted it or it has failed."""
    path, log = f"{place.pods}/{name}:{names.STATUS_PORT}/proxy/metrics", f"{place.pods}/{name}/log"
    while True:
        try:
            text = (await place.api.request("GET", path)).decode()
            said = (await place.api.request("GET", log, query=(("container", "app"),))).decode()
        except ApiError:
            text = said = ""  # its proxy does not answer yet
        # Nothing but the request: its name is resolved by UDP.
        series = [line for line in text.splitlines() if line.startswith("envoy_autotls_rq{")]
        counted = [line for line in series if 'dir="outbound"' in line]
        if _FAILED in said:
            return False
        if any(float(line.rpartition(" ")[2]) for line in counted):
            return all('tls="TLSv1.' in line for line in counted)
        await asyncio.sleep(_POLL_S)


async def measure(place: Place, count: int) -> tuple[list[float], list[float], int]:
    """Start times of injected and of no-op pods in milliseconds, and how many first connections were mutual TLS."""
    await serve(place)
    injected: list[float] = []
    no_op: list[float] = []
    by_tls = 0
    for number in range(count):
        if number % _EVERY == 0:
            no_op.append(await start_ms(place, NO_OP, f"no-op-{number}"))
        taken, tls = await trial(place, f"pod-{number}")
        injected.append(taken)
        by_tls += tls
    return injected, no_op, by_tls


async def run(count: int) -> None:
    folder = Cache.from_environment().cluster(ClusterName.parse(os.environ.get("CLUSTER") or DEFAULT_NAME))
    lifecycle.require_running(folder)
    async with place_on(folder) as place:
        injected, no_op, by_tls = await measure(place, count)
    added = statistics.median(injected) - statistics.median(no_op)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    report(
        Line(f"first connection is mutual TLS, of {count} pods", by_tls, "", count, at_least=True),
        Line("  added to the start of these pods", added, "ms", BUDGET_MS),
    )


def main() -> int:
    """0 also when the budget is missed: budgets never decide."""
    given = options(__doc__, count=50)
    try:
        asyncio.run(run(given.count))
    except ClusterError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
