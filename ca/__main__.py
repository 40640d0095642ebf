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
from pathlib import Path
from typing import Final

import structlog
import uvloop

from ca.controller import Controller, make_controller
from ca.health import serve_health
from kube.client import connect
from kube.errors import KubeconfigError
from kube.lease import Elector, LeaseTiming
from mesh import names
from mesh.config import ConfigError, MeshConfig, parse_config, parse_duration
from mesh.settings import default_settings
from webhook.logs import configure_logs

_EXIT_CONFIGURATION: Final = 2
_log: Final = structlog.get_logger("ca")


def main() -> int:
    """The exit code."""
    configure_logs()
    try:
        config = load_config(Path(os.environ.get("AUTOTLS_CONFIG", names.CONFIG_PATH)))
        uvloop.run(_run(config, os.environ.get("AUTOTLS_POD_NAME", "ca"), _health_port()))
    except (ConfigError, KubeconfigError) as error:
        _log.error("configuration_refused", error=str(error))
        return _EXIT_CONFIGURATION
    return 0


def load_config(path: Path) -> MeshConfig:
    """The configuration of the installation, its defaults for pods checked. Raises ConfigError."""
    try:
        config = parse_config(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", hint="set AUTOTLS_CONFIG to the file") from error
    # Found out now: the narrator decides about pods, and would end a leader's term at the first one.
    default_settings(config, config.mode)
    return config


def _health_port() -> int:
    text = os.environ.get("AUTOTLS_HEALTH_PORT", str(names.HEALTH_PORT))
    if not text.isdigit():
        raise ConfigError(f"AUTOTLS_HEALTH_PORT: {text!r} is not a port")
    return int(text)


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

        def unready() -> str:
            # A standby is ready when there is somebody to stand by for: `helm install --wait` must not end before
            # the registrations have their caBundle, or the first pods would be admitted without a sidecar.
            if elector.is_leader and terms:
                return terms[0].unready
            return "" if elector.follows_leader else "no leader was seen at work yet"

        # What is there now stays for good; without it every collection walks through all the imports.
        gc.collect()
        gc.freeze()
        async with serve_health(health_port, unready=unready), asyncio.TaskGroup() as group:
            leading = group.create_task(elector.run(work), name="election")
            await stop.wait()
            _log.info("stopping")
            leading.cancel()


if __name__ == "__main__":
    sys.exit(main())
