"""Says aloud that a meshed peer was reached in plaintext: an Event on the client's pod, and a metric."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from discovery.fallbacks import Fallback, Fallbacks, Pods
from discovery.metrics import FALLBACKS
from kube.client import Api
from kube.events import Recorder, Regarding

COMPONENT: Final = "autotls.io/discovery"
REASON: Final = "PlaintextToMeshedPeer"
ACTION: Final = "Connect"
# Seconds between two updates of the metric.
MEASURE_S: Final = 5.0

_log: Final = structlog.get_logger("discovery")


class Alarms:
    """`consumer` goes into the sink; `run` writes the Events. `instance` is the name of our own pod."""

    def __init__(
        self, api: Api, pods: Pods, *, instance: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._recorder = Recorder(api, COMPONENT, instance=instance)
        self.consumer = Fallbacks(pods, self._say, clock)
        self._measured: frozenset[tuple[str, str]] = frozenset()

    def _say(self, found: Fallback) -> None:
        client = found.client
        _log.warning("plaintext_to_meshed_peer", client=client.key, server=found.server, failure=found.failure)
        namespace, _, name = client.key.partition("/")
        pod = Regarding("v1", "Pod", name, namespace, client.uid)
        self._recorder.emit(pod, REASON, found.message, type="Warning", action=ACTION)
        self.measure()

    async def run(self) -> None:
        """For ever; cancel to stop."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._recorder.run(), name="events")
            group.create_task(self._measure(), name="fallbacks")

    async def _measure(self) -> None:
        while True:
            await asyncio.sleep(MEASURE_S)
            self.measure()

    def measure(self) -> None:
        """Brings the metric up to date."""
        now = frozenset(self.consumer.going_on())
        for pair in self._measured - now:
            FALLBACKS.remove(*pair)
        for pair in now - self._measured:
            FALLBACKS.labels(*pair).set(1)
        self._measured = now
