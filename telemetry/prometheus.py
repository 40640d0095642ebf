"""Windows out of an existing Prometheus, for meshes whose proxies are too many to be asked one by one.

Same series, same rules, same tables (telemetry.promql). Prometheus has the past already, so nothing is waited for.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

import aiohttp

from kube.client import Api
from kube.errors import ApiError
from telemetry import causes, promql
from telemetry.listing import list_cluster
from telemetry.measurement import Measurement, listed, measurement
from telemetry.promql import PrometheusError

# (query, evaluation time or empty) -> body.
Ask = Callable[[str, str], Awaitable[bytes]]
TIMEOUT_S: Final = 30.0
_QUERY: Final = "api/v1/query"
# A Service of the cluster: not reachable from everywhere, but through the API server (`get` on `services/proxy`).
_IN_CLUSTER: Final = re.compile(
    r"(https?)://([a-z0-9-]+)\.([a-z0-9-]+)\.svc(?:\.[a-z0-9.-]+?)?(?::(\d+))?(/.*)?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class PrometheusMeter:
    """Measures windows that end now. `namespace`: see list_cluster."""

    api: Api
    ask: Ask
    namespace: str | None = None

    async def measure(self, window_s: float) -> Measurement:
        """What happened in the last `window_s` seconds. Raises PrometheusError, and ApiError for listing pods."""
        (cluster, notes), now = await asyncio.gather(list_cluster(self.api, self.namespace), self._now())
        questions = promql.increases(window_s)
        seconds, known, truncated, *answers = await asyncio.gather(
            *(self.ask(query, now) for query in (promql.span(window_s), promql.PROXIES, promql.TRUNCATED)),
            *(self.ask(query, now) for query in questions.values()),
        )
        proxies = [pod.key for pod in cluster.pods if pod.meshed]
        missing = sorted(set(proxies) - promql.pods(known))
        said = list(notes)
        if missing:
            said.append(f"{len(missing)} of {len(proxies)} proxies are not known to Prometheus: {listed(missing)}")
        full = sorted(promql.pods(truncated))
        if full:
            said.append(f"{len(full)} proxies reached their limit of series and left something out: {listed(full)}")
        added = promql.merged(map(promql.series_by_pod, questions, answers))
        found = measurement(cluster, added, promql.scalar(seconds) or window_s, said)
        pods = causes.suspects(found.book)
        if not pods:
            return found
        evidence = promql.samples_by_pod(await self.ask(promql.evidence(pods), now))
        return replace(found, book=causes.explained(found.book, evidence))

    async def _now(self) -> str:
        now = promql.scalar(await self.ask(promql.NOW, ""))
        if now is None:
            raise PrometheusError("Prometheus does not know the time", hint="is this the address of its HTTP API?")
        return f"{now:.3f}"


def asking(api: Api, url: str, session: aiohttp.ClientSession) -> Ask:
    """Asks the Prometheus at `url`: directly, or through the API server where it is a Service of the cluster."""
    inside = _IN_CLUSTER.fullmatch(url)
    if inside is None:
        return _Direct(session, url).ask
    scheme, service, namespace, port, path = inside.groups()
    named = f"{scheme.lower()}:{service}:{port or (443 if scheme.lower() == 'https' else 80)}"
    root = f"/api/v1/namespaces/{namespace}/services/{named}/proxy{(path or '').rstrip('/')}"
    return _Proxied(api, f"{root}/{_QUERY}").ask


def _parameters(query: str, time: str) -> list[tuple[str, str]]:
    return [("query", query), *([("time", time)] if time else [])]


@dataclass(frozen=True, slots=True)
class _Proxied:
    api: Api
    path: str

    async def ask(self, query: str, time: str) -> bytes:
        try:
            return await self.api.request("GET", self.path, query=_parameters(query, time), timeout_s=TIMEOUT_S)
        except ApiError as error:
            hint = "is --prometheus-url right? It needs `get` on `services/proxy` there"
            raise PrometheusError(f"Prometheus cannot be asked: {error.message}", hint=hint) from error


@dataclass(frozen=True, slots=True)
class _Direct:
    session: aiohttp.ClientSession
    url: str

    async def ask(self, query: str, time: str) -> bytes:
        limits = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            address = f"{self.url.rstrip('/')}/{_QUERY}"
            async with self.session.post(address, data=_parameters(query, time), timeout=limits) as answer:
                return await answer.read()  # an error has a body that says more than its status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            hint = "is --prometheus-url right, and reachable from here?"
            raise PrometheusError(f"Prometheus cannot be asked: {type(error).__name__}: {error}", hint=hint) from error
