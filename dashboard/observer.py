"""The one owner of what is known: mirrors the cluster, looks at every proxy in turns, keeps the newest snapshot."""

import asyncio
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final

import aiohttp
import structlog

from dashboard.memory import History, Scrapes
from dashboard.metrics import FAILED, ROUND_SECONDS, SCRAPED
from dashboard.model import Figures, Snapshot
from dashboard.scrape import ScrapeError, Target, scrape_all
from dashboard.summary import Round, certificates, counted_in, summary
from discovery.kinds import SERVICES, Service
from kube.client import Api
from kube.reflector import Reflector
from mesh import names
from mesh.config import MeshConfig
from telemetry.exposition import parse
from telemetry.kinds import NODES, PODS, SeenNode, SeenPod
from telemetry.workloads import Inventory, PodFacts, inventory

INTERVAL_S: Final = 5.0
WINDOW_S: Final = 30.0
# Only what is shown; a whole answer of a proxy is several times as large (telemetry/scrape.py).
_FILTER: Final = r"^(autotls\.|server\.(uptime|stats_overflow)|listener\.inbound_mtls\.ssl\.certificate)"

_log: Final = structlog.get_logger("dashboard")


class Observer:
    """`target` says where a proxy answers; tests put theirs on other ports."""

    def __init__(
        self,
        config: MeshConfig,
        namespace: str,
        *,
        date: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
        target: Callable[[PodFacts], Target] | None = None,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._config, self._namespace = config, namespace
        self._clock, self._date = clock, date
        self._target, self._interval_s = target or _proxy, interval_s
        self._scrapes, self._history = Scrapes(WINDOW_S), History()
        self._leaves: dict[str, float] = {}
        self._authority: dict[str, float] = {}
        self._cluster = inventory((), (), ())
        self._stale = True
        self._failures: dict[str, str] = {}
        self._mirrors: tuple[Reflector[Any], ...] = ()
        self.looked = False
        self.snapshot = Snapshot(date(), 0.0, Figures(), notes=("the cluster is looked at for the first time",))

    def mirror(self, api: Api) -> None:
        """Prepares the reflectors; `run` keeps them going."""

        def changed(_key: str, _item: object) -> None:
            self._stale = True

        self._mirrors = (
            Reflector(api, PODS, SeenPod, on_change=changed),
            Reflector(api, SERVICES, Service, on_change=changed),
            Reflector(api, NODES, SeenNode, on_change=changed),
        )

    async def run(self) -> None:
        """For ever; cancel to stop."""
        async with asyncio.TaskGroup() as group, aiohttp.ClientSession() as session:
            group.create_task(self.run_mirrors(), name="mirrors")
            await self.synced()
            while True:
                started = self._clock()
                await self.look(session)
                ROUND_SECONDS.observe(self._clock() - started)
                await asyncio.sleep(max(0.0, self._interval_s - (self._clock() - started)))

    async def run_mirrors(self) -> None:
        """For ever; cancel to stop."""
        async with asyncio.TaskGroup() as group:
            for mirror in self._mirrors:
                group.create_task(mirror.run(), name="reflector")

    async def synced(self) -> None:
        """Returns once the whole cluster is known."""
        for mirror in self._mirrors:
            await mirror.synced.wait()

    async def look(self, session: aiohttp.ClientSession) -> None:
        """One round over every proxy and the CA; afterwards there is a new snapshot."""
        cluster = self._inventory()
        proxies = {pod.uid: pod for pod in cluster.pods if pod.meshed and pod.addresses}
        targets = [self._target(pod) for pod in proxies.values()]
        self._failures = {}
        async for target, answer in scrape_all(session, [*targets, *self._authorities(cluster)]):
            self._take(target, answer, proxies)
        self._scrapes.keep(proxies)
        self._leaves = {uid: until for uid, until in self._leaves.items() if uid in proxies}
        # In a thread: for hundreds of proxies this takes longer than a page may wait.
        self.snapshot = await asyncio.to_thread(self._summarize, cluster, tuple(proxies.values()))
        self.looked = True

    def _inventory(self) -> Inventory:
        if self._stale and self._mirrors:
            self._stale = False
            pods, services, nodes = (mirror.store.values() for mirror in self._mirrors)
            self._cluster = inventory(pods, services, nodes)
        return self._cluster

    def _authorities(self, cluster: Inventory) -> Iterable[Target]:
        for pod in cluster.pods:
            ours = pod.labels.get("app.kubernetes.io/name") == "autotls" and pod.namespace == self._namespace
            if ours and pod.labels.get("app.kubernetes.io/component") == "ca" and pod.addresses:
                yield Target("", pod.addresses[0], names.HEALTH_PORT)

    def _take(self, target: Target, answer: bytes | ScrapeError, proxies: dict[str, PodFacts]) -> None:
        if isinstance(answer, ScrapeError):
            FAILED.inc()
            if target.key:
                self._failures[proxies[target.key].key] = str(answer)
            return
        SCRAPED.inc()
        samples = parse(answer)
        if not target.key:
            self._authority |= certificates(samples)
            return
        leaf = certificates(samples).get("leaf")
        if leaf is not None:
            self._leaves[target.key] = leaf
        self._scrapes.add(target.key, self._clock(), samples)

    def _summarize(self, cluster: Inventory, proxies: tuple[PodFacts, ...]) -> Snapshot:
        now = self._clock()
        found = counted_in(self._scrapes, proxies, now)
        look = Round(
            at=self._date(), cluster=cluster, found=found, failures=self._failures, leaves=self._leaves,
            authority=self._authority, config=self._config,
        )  # fmt: skip
        return summary(look, self._history)


def _proxy(pod: PodFacts) -> Target:
    return Target(pod.uid, pod.addresses[0], names.STATUS_PORT, f"/metrics?filter={_FILTER}")
