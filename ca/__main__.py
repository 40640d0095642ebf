"""`python -m ca`: the process of the CA. One replica works, the others wait for its Lease.

Exit codes: 0 after SIGTERM, 1 for a fault (Kubernetes restarts it), 2 for a configuration that cannot work.
Environment: AUTOTLS_CONFIG, AUTOTLS_POD_NAME, AUTOTLS_HEALTH_PORT (9090).
"""

import asyncio
import gc
import os
import secrets
import signal
import sys
from typing import Final

import structlog
import uvloop

from ca.controller import Controller, make_controller
from kube.client import connect
from kube.errors import KubeconfigError
from kube.lease import Elector, LeaseTiming
from mesh import names
from mesh.config import ConfigError, MeshConfig, parse_duration
from process.config import EXIT_CONFIGURATION, configured, port_of
from process.health import Health
from process.logs import configure_logs

_log: Final = structlog.get_logger("ca")


def main() -> int:
    """The exit code."""
    configure_logs()
    try:
        health_port = port_of("AUTOTLS_HEALTH_PORT", names.HEALTH_PORT)
        uvloop.run(_run(configured(), os.environ.get("AUTOTLS_POD_NAME", "ca"), health_port))
    except (ConfigError, KubeconfigError) as error:
        _log.error("configuration_refused", error=str(error))
        return EXIT_CONFIGURATION
    return 0


def lease_timing(config: MeshConfig) -> LeaseTiming:
    lease = config.lease
    return LeaseTiming(
        duration_s=parse_duration(lease.duration).total_seconds(),
        renew_deadline_s=parse_duration(lease.renew_deadline).total_seconds(),
        retry_period_s=parse_duration(lease.retry_period).total_seconds(),
    )


async def _run(config: MeshConfig, pod: str, health_port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    terms: list[Controller] = []
    async with connect() as api:
        elector = Elector(
            api,
            namespace=config.control_plane_namespace,
            name=names.CA_LEASE,
            # Two processes of one pod name (a container that was restarted) are two candidates.
            identity=f"{pod}_{secrets.token_hex(4)}",
            timing=lease_timing(config),
        )

        async def work() -> None:
            # A fresh controller for each term: what a former term believed may be long out of date.
            terms[:] = [make_controller(elector.fenced(api), api, config, instance=pod)]
            await terms[0].run()

        def missing() -> tuple[str, ...]:
            # A standby is ready when there is somebody to stand by for: `helm install --wait` must not end before
            # the registrations have their caBundle, or the first pods would be admitted without a sidecar.
            if elector.is_leader and terms:
                return (terms[0].unready,) if terms[0].unready else ()
            return () if elector.follows_leader else ("no leader was seen at work yet",)

        # What is there now stays for good; without it every collection walks through all the imports.
        gc.collect()
        gc.freeze()
        async with Health(missing).served(health_port), asyncio.TaskGroup() as group:
            leading = group.create_task(elector.run(work), name="election")
            await stop.wait()
            _log.info("stopping")
            leading.cancel()


if __name__ == "__main__":
    sys.exit(main())
