"""`python -m dashboard`: looks at the mesh and serves its pages on the pod's loopback until SIGTERM.

Exit codes: 0 after SIGTERM, 1 for a fault (Kubernetes restarts it), 2 for a configuration that cannot work.
Environment: AUTOTLS_CONFIG, AUTOTLS_POD_NAMESPACE, AUTOTLS_DASHBOARD_PORT (8080), AUTOTLS_HEALTH_PORT (9090).
"""

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Generator
from datetime import UTC, datetime
from typing import Final

import structlog
import uvicorn

from dashboard.app import build_app
from dashboard.observer import Observer
from kube.client import connect
from kube.errors import KubeconfigError
from mesh import names
from mesh.config import ConfigError, MeshConfig
from process.config import EXIT_CONFIGURATION, configured, port_of
from process.health import Health, Readiness
from process.logs import configure_logs

_log: Final = structlog.get_logger("dashboard")


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # uvicorn raises SIGTERM again when it is done, which would kill the process before the others are.
        yield


async def run(config: MeshConfig, namespace: str, port: int, health_port: int) -> None:
    """Until SIGTERM or SIGINT. A fault of any part ends all of them: Kubernetes starts the process anew."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    observer = Observer(config, namespace, date=_now)
    server = page_server(observer, port)
    readiness = Readiness({"cluster": lambda: observer.looked, "listening": lambda: server.started})
    async with Health(readiness.missing).served(health_port), connect() as api, asyncio.TaskGroup() as group:
        observer.mirror(api)
        serving = group.create_task(server.serve(), name="pages")
        observing = group.create_task(observer.run(), name="observer")
        # What is there now stays for good; without it every collection walks through all the imports.
        gc.collect()
        gc.freeze()
        await stop.wait()
        _log.info("stopping")
        readiness.stop()
        server.should_exit = True
        await serving
        observing.cancel()


def page_server(observer: Observer, port: int) -> uvicorn.Server:
    """The pages on 127.0.0.1: whoever reaches that port was let in by the API server."""
    config = uvicorn.Config(
        build_app(lambda: observer.snapshot, _now),
        host="127.0.0.1",
        port=port,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=2,
    )
    return _Server(config)


def _now() -> datetime:
    return datetime.now(UTC)


def main() -> int:
    """The exit code."""
    configure_logs()
    try:
        namespace = os.environ.get("AUTOTLS_POD_NAMESPACE", names.DEFAULT_CONTROL_PLANE_NAMESPACE)
        port = port_of("AUTOTLS_DASHBOARD_PORT", names.DASHBOARD_PORT)
        asyncio.run(run(configured(), namespace, port, port_of("AUTOTLS_HEALTH_PORT", names.HEALTH_PORT)))
    except (ConfigError, KubeconfigError) as error:
        _log.error("configuration_refused", error=str(error))
        return EXIT_CONFIGURATION
    return 0


if __name__ == "__main__":
    sys.exit(main())
