"""`python -m bench.pod_start`: from the creation of a pod to the start of its application, on the cluster of `make up`.

Three pods alternate: injected; the same pod with an init container and a native sidecar that do nothing; the plain one.
The application's first act is to print the time in nanoseconds, by the same machine's clock as the client's that
creates the pod (containers' `startedAt` counts whole seconds). One pod exists at a time.
"""

import asyncio
import json
import os
import secrets
import statistics
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from bench import budget
from bench.budget import Line
from bench.options import options
from cluster import lifecycle
from cluster.errors import ClusterError
from cluster.layout import DEFAULT_NAME, Cache, ClusterName, RunFolder
from kube.client import Api, connect
from kube.errors import ApiError, NotFoundError
from mesh import names

BUDGET_MS: Final = 400.0
DEADLINE_S: Final = 120.0
INJECTED, NO_OP, PLAIN = "injected", "no-op containers", "plain"
_POLL_S: Final = 0.05
_SCRIPT: Final = "date +%s%N; exec sleep 600"


@dataclass(frozen=True, slots=True)
class Place:
    """Where pods are made: one namespace that opted in, and the image they run."""

    api: Api
    namespace: str
    image: str

    @property
    def pods(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods"


def pod(place: Place, kind: str, name: str, script: str = _SCRIPT) -> dict[str, Any]:
    """The pod of that kind; only the injected one is left to the webhook. `script` is its application."""
    container = {"image": place.image, "imagePullPolicy": "IfNotPresent"}
    app: dict[str, Any] = {**container, "name": "app", "command": ["sh", "-c", script]}
    spec: dict[str, Any] = {"containers": [app], "terminationGracePeriodSeconds": 0}
    if kind == NO_OP:
        spec["initContainers"] = [
            {**container, "name": "first", "command": ["true"]},
            {**container, "name": "sidecar", "command": ["sleep", "600"], "restartPolicy": "Always"},
        ]
    inject = names.INJECT_ENABLED if kind == INJECTED else names.INJECT_DISABLED
    metadata = {"name": name, "labels": {names.INJECT_LABEL: inject}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


async def start_ms(place: Place, kind: str, name: str, script: str = _SCRIPT, *, keep: bool = False) -> float:
    """Milliseconds from the POST to the application's first line; the pod stays if `keep`. Raises TimeoutError."""
    body = json.dumps(pod(place, kind, name, script)).encode()
    created_ns = time.time_ns()
    answer = json.loads(await place.api.request("POST", place.pods, body=body))
    sidecars = [each["name"] for each in answer["spec"].get("initContainers") or ()]
    if (names.PROXY_CONTAINER in sidecars) != (kind == INJECTED):
        raise SystemExit(f"the pod {kind} came out with the init containers {sidecars}")
    try:
        async with asyncio.timeout(DEADLINE_S):
            return (await _first_line(place, name) - created_ns) / 1e6
    finally:
        if not keep:
            await delete(place, name)


async def _first_line(place: Place, name: str) -> int:
    while True:
        try:
            text = await place.api.request("GET", f"{place.pods}/{name}/log", query=(("container", "app"),))
            if b"\n" in text:
                return int(text.splitlines()[0])
        except ApiError:
            pass  # its container does not exist yet
        await asyncio.sleep(_POLL_S)


async def delete(place: Place, name: str) -> None:
    await place.api.request("DELETE", f"{place.pods}/{name}", query=(("gracePeriodSeconds", "0"),))
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                await place.api.request("GET", f"{place.pods}/{name}")
            except NotFoundError:
                return
            await asyncio.sleep(_POLL_S)


@asynccontextmanager
async def place_on(folder: RunFolder) -> AsyncGenerator[Place]:
    """A namespace of this run, its default identity issued; deleted at the end."""
    name = f"bench-{secrets.token_hex(3)}"
    image = json.loads((folder.root / "images.json").read_bytes())["testbox"]
    namespace = {"metadata": {"name": name, "labels": {names.INJECT_LABEL: names.INJECT_ENABLED}}}
    async with connect(kubeconfig=str(folder.kubeconfig)) as api:
        await api.request("POST", "/api/v1/namespaces", body=json.dumps(namespace).encode())
        try:
            for path in ("serviceaccounts/default", f"secrets/{names.identity_secret_name('default')}"):
                await _until_there(api, f"/api/v1/namespaces/{name}/{path}")
            yield Place(api, name, image)
        finally:
            await api.request("DELETE", f"/api/v1/namespaces/{name}")


async def _until_there(api: Api, path: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                await api.request("GET", path)
                return
            except NotFoundError:
                await asyncio.sleep(_POLL_S)


async def measure(folder: RunFolder, rounds: int) -> dict[str, list[float]]:
    """Milliseconds by kind; the first round warms up and is thrown away."""
    found: dict[str, list[float]] = {INJECTED: [], NO_OP: [], PLAIN: []}
    async with place_on(folder) as place:
        for number in range(rounds + 1):
            for index, kind in enumerate(found):
                taken = await start_ms(place, kind, f"pod-{number}-{index}")
                if number:
                    found[kind].append(taken)
    return found


def report(found: dict[str, list[float]]) -> None:
    """Medians of the three, and the budget's line."""
    rounds = len(found[INJECTED])
    print(f"pod start: median of {rounds} pods of each kind, one at a time, interleaved")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    median = {kind: statistics.median(each) for kind, each in found.items()}
    for kind, each in found.items():
        print(f"  {kind:<18}{median[kind]:>8.0f} ms   (fastest {min(each):.0f}, slowest {max(each):.0f})")
    # Rounds share a moment's load, so the median of their differences says more than that of two medians.
    paired = statistics.median(a - b for a, b in zip(found[INJECTED], found[NO_OP], strict=True))
    print(f"  injected over no-op containers within rounds: {paired:.0f} ms")
    over = median[INJECTED] - median[NO_OP]
    budget.report(Line("pod start, added over no-op containers", over, "ms", BUDGET_MS))


def main() -> int:
    """0 also when the budget is missed: budgets never decide."""
    given = options(__doc__, rounds=20)
    try:
        folder = Cache.from_environment().cluster(ClusterName.parse(os.environ.get("CLUSTER") or DEFAULT_NAME))
        lifecycle.require_running(folder)
    except ClusterError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 1
    report(asyncio.run(measure(folder, given.rounds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
