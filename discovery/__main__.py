"""`python -m discovery`: mirrors the cluster, then serves the proxies until SIGTERM.

Exit codes: 0 after SIGTERM, 1 for a fault (Kubernetes restarts it), 2 for a configuration that cannot work.
Environment: AUTOTLS_CONFIG, AUTOTLS_POD_NAME, AUTOTLS_HEALTH_PORT (9090).
"""

import asyncio
import gc
import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from discovery.ads import Server
from discovery.alarms import Alarms
from discovery.credentials import ServerCredentials
from discovery.errors import CredentialsError
from discovery.fallbacks import Fallbacks
from discovery.state import State
from discovery.tap_access import Access
from discovery.tap_server import TapServer
from discovery.taps import Taps
from kube.client import Api, connect
from kube.errors import KubeconfigError
from mesh import names
from mesh.config import ConfigError, MeshConfig
from mesh.spiffe import TrustDomain
from process.config import EXIT_CONFIGURATION, configured, port_of
from process.health import Health
from process.logs import configure_logs

CERTIFICATE_FOLDER: Final = Path("/var/run/secrets/autotls.io/discovery")
# From "not ready" to the last proxy having been told by its DNS or kube-proxy that this replica is gone.
DRAIN_S: Final = 2.0
_CERTIFICATE_RETRY_S: Final = 1.0

_log: Final = structlog.get_logger("discovery")


async def run(config: MeshConfig, folder: Path, health_port: int) -> None:
    """Until SIGTERM or SIGINT. A fault of any part ends all of them: Kubernetes starts the process anew."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    state, credentials = State(config), ServerCredentials(folder)
    serving = asyncio.Event()

    def missing() -> tuple[str, ...]:
        conditions = {
            "stopping": not stop.is_set(),
            "certificate": credentials.loaded,
            "cluster": state.synced or serving.is_set(),
            "listening": serving.is_set(),
        }
        return tuple(name for name, holds in conditions.items() if not holds)

    async with Health(missing).served(health_port), connect() as api, asyncio.TaskGroup() as group:
        state.mirror(api)
        alarms = Alarms(api, state.world, instance=os.environ.get("AUTOTLS_POD_NAME", "discovery"))
        tasks = [
            group.create_task(state.run_reflectors(), name="reflectors"),
            group.create_task(state.run(), name="state"),
            group.create_task(alarms.run(), name="alarms"),
            group.create_task(
                _serve(api, state, config, credentials, fallbacks=alarms.consumer, serving=serving, stop=stop),
                name="ads",
            ),
        ]
        await stop.wait()
        _log.info("stopping", drain_s=DRAIN_S)
        await tasks.pop()
        for task in tasks:
            task.cancel()


async def _serve(
    api: Api,
    state: State,
    config: MeshConfig,
    credentials: ServerCredentials,
    *,
    fallbacks: Fallbacks,
    serving: asyncio.Event,
    stop: asyncio.Event,
) -> None:
    stopped = asyncio.create_task(stop.wait(), name="stop")
    ready = asyncio.create_task(_prepared(state, credentials), name="prepare")
    await asyncio.wait((stopped, ready), return_when=asyncio.FIRST_COMPLETED)
    if not ready.done():
        ready.cancel()
        return
    await ready
    taps = Taps(state.world, time.monotonic)
    trust_domain = TrustDomain.parse(config.trust_domain)
    server = Server(state, trust_domain, credentials, date=_now, consumers=(taps, fallbacks), tapped=taps.level)
    taps.changed = server.streams.tap_changed
    await server.start()
    door = TapServer(taps, Access(api), lambda tap: sum(taps.matches(tap, pod) for pod in server.streams.pods()))
    listening = await door.serve(names.TAP_PORT)
    serving.set()
    _log.info("serving", port=server.port, **state.world.counts())
    # What is there now stays for good; without it every collection walks through the whole cluster.
    gc.collect()
    gc.freeze()
    async with asyncio.TaskGroup() as group:
        helpers = [
            group.create_task(server.sweep(), name="sweep"),
            group.create_task(credentials.watch(), name="certificate"),
        ]
        await stopped
        listening.close()
        await door.close()
        await asyncio.sleep(DRAIN_S)
        await server.stop()
        for helper in helpers:
            helper.cancel()


async def _prepared(state: State, credentials: ServerCredentials) -> None:
    """Returns when there is a certificate (the CA may still have to make it) and the whole cluster is known."""
    said = ""
    while not credentials.loaded:
        try:
            credentials.load()
        except CredentialsError as error:
            if str(error) != said:
                _log.warning("waiting_for_certificate", error=str(error))
            said = str(error)
            await asyncio.sleep(_CERTIFICATE_RETRY_S)
    await state.until_synced()


def _now() -> datetime:
    return datetime.now(UTC)


def main() -> int:
    """The exit code."""
    configure_logs()
    try:
        asyncio.run(run(configured(), CERTIFICATE_FOLDER, port_of("AUTOTLS_HEALTH_PORT", names.HEALTH_PORT)))
    except (ConfigError, KubeconfigError) as error:
        _log.error("configuration_refused", error=str(error))
        return EXIT_CONFIGURATION
    return 0


if __name__ == "__main__":
    sys.exit(main())
