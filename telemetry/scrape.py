"""The proxies' own counters, asked for through the API server: no component of ours, and no port but its own.

Each proxy answers `GET /metrics` on port 15120 (proxy/bootstrap.yaml.in), which the API server's pod proxy reaches
(`get` on `pods/proxy`). Two looks make a window; a look that fails is a note, never a wrong number.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from kube.client import Api
from kube.errors import ApiError
from mesh import names
from telemetry import causes
from telemetry.exposition import UPTIME, parse, series_of
from telemetry.listing import list_cluster
from telemetry.measurement import Measurement, is_truncated, listed, measurement
from telemetry.window import UPTIME_LAG_S, Scrape, total
from telemetry.workloads import Inventory, PodFacts

# Envoy matches it against its own names of the series; without it an answer is several times as large.
FILTER: Final = r"^(autotls\.|server\.(uptime|stats_overflow)|cluster\..*/.*\.upstream_cx_[rt]x_bytes_total$)"
CONCURRENCY: Final = 24
TIMEOUT_S: Final = 5.0
# Envoy forgets a series that was idle for 5 to 10 minutes (stats_eviction_interval): longer windows look in between.
LONGEST_GAP_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Look:
    """The cluster and its proxies at one moment."""

    at: float
    cluster: Inventory
    scrapes: Mapping[str, Scrape]  # by the pod's uid: a StatefulSet gives a new pod the name of the one before
    failures: Mapping[str, str]  # `namespace/name` -> why
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Meter:
    """Measures window after window: the end of one is the beginning of the next.

    `namespace`: see list_cluster.
    """

    api: Api
    namespace: str | None = None
    _last: Look | None = field(default=None, init=False)

    async def measure(self, window_s: float) -> Measurement:
        """What happened in the next `window_s` seconds. Raises ApiError when the pods cannot be listed."""
        looks = [self._last or await self.look()]
        loop = asyncio.get_running_loop()
        end = loop.time() + window_s
        while (left := end - loop.time()) > 0:
            await asyncio.sleep(min(left, LONGEST_GAP_S))
            looks.append(await self.look())
        self._last = looks[-1]
        return await self._explained(between(looks))

    async def _explained(self, found: Measurement) -> Measurement:
        """With the causes of `tls_failed`, for which the proxies of both ends are asked once more."""
        gate = asyncio.Semaphore(CONCURRENCY)
        pods = causes.suspects(found.book)
        if not pods:
            return found
        answers = await asyncio.gather(*(self._answer(pod, gate, causes.FILTER) for pod in pods))
        evidence = {
            pod.key: causes.samples_of(text) for pod, text in zip(pods, answers, strict=True) if isinstance(text, bytes)
        }
        return replace(found, book=causes.explained(found.book, evidence))

    async def look(self) -> Look:
        """Lists the cluster and scrapes every proxy. Raises ApiError when the pods cannot be listed."""
        cluster, notes = await list_cluster(self.api, self.namespace)
        gate = asyncio.Semaphore(CONCURRENCY)
        proxies = [pod for pod in cluster.pods if pod.meshed]
        async with asyncio.TaskGroup() as group:
            tasks = [(pod, group.create_task(self._scrape(pod, gate), name=f"scrape {pod.key}")) for pod in proxies]
        answers = [(pod, task.result()) for pod, task in tasks]
        scrapes = {pod.uid: each for pod, each in answers if isinstance(each, Scrape)}
        failures = {pod.key: each for pod, each in answers if isinstance(each, str)}
        return Look(asyncio.get_running_loop().time(), cluster, scrapes, failures, notes)

    async def _scrape(self, pod: PodFacts, gate: asyncio.Semaphore) -> Scrape | str:
        text = await self._answer(pod, gate, FILTER)
        return text if isinstance(text, str) else Scrape(asyncio.get_running_loop().time(), parse(text))

    async def _answer(self, pod: PodFacts, gate: asyncio.Semaphore, wanted: str) -> bytes | str:
        """What the proxy says of the series that match; why not as text."""
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}:{names.STATUS_PORT}/proxy/metrics"
        async with gate:
            try:
                return await self.api.request("GET", path, query=(("filter", wanted),), timeout_s=TIMEOUT_S)
            except ApiError as error:
                return error.reason


def between(looks: Sequence[Look]) -> Measurement:
    """What the looks, in order, show together; the cluster is the last one's."""
    first, last = looks[0], looks[-1]
    existed = {pod.uid for pod in first.cluster.pods}
    added: dict[str, Mapping[bytes, float]] = {}
    late: list[str] = []
    spans: list[float] = []
    for pod in last.cluster.pods:
        scrapes = [look.scrapes[pod.uid] for look in looks if pod.uid in look.scrapes]
        if not scrapes:
            continue
        newborn = pod.uid not in existed or _started_within(scrapes[0], first.at)
        found = total(scrapes, newborn=newborn)
        if found is None or (pod.uid not in first.scrapes and not newborn):
            late.append(pod.key)
        added[pod.key] = found or {}
        if pod.uid in first.scrapes:
            spans.append(scrapes[-1].at - scrapes[0].at)
    seconds = sum(spans) / len(spans) if spans else last.at - first.at
    return measurement(
        last.cluster, {key: series_of(found) for key, found in added.items()}, seconds, _notes(last, late, len(added))
    )


def _started_within(scrape: Scrape, begin: float) -> bool:
    uptime = scrape.samples.get(UPTIME)
    return uptime is not None and uptime + UPTIME_LAG_S < scrape.at - begin


def _notes(last: Look, late: Sequence[str], answered: int) -> tuple[str, ...]:
    notes = list(last.notes)
    if last.failures:
        words = [f"{key} ({why})" for key, why in sorted(last.failures.items())]
        total_proxies = len(last.failures) + len(last.scrapes)
        notes.append(f"{len(words)} of {total_proxies} proxies did not answer: {listed(words)}")
    if late:
        notes.append(f"{len(late)} of {answered} proxies answered only after the window began: {listed(sorted(late))}")
    truncated = sorted(
        pod.key for pod in last.cluster.pods if pod.uid in last.scrapes and is_truncated(last.scrapes[pod.uid].samples)
    )
    if truncated:
        notes.append(
            f"{len(truncated)} proxies reached their limit of series and left something out: {listed(truncated)}"
        )
    return tuple(notes)
