"""`python -m webhook`: the process of the webhook.

Exit codes: 0 after SIGTERM, 1 for a fault (Kubernetes restarts it), 2 for a configuration that cannot work,
3 when a port is taken.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog
import uvloop

from kube.client import connect
from kube.errors import KubeconfigError
from mesh import names
from mesh.config import ConfigError, MeshConfig
from process.config import EXIT_CONFIGURATION, configured
from process.health import Health, Readiness
from process.logs import configure_logs
from webhook.app import build_app
from webhook.server import DRAIN_S, Listen, serve
from webhook.sources import MirroredCluster
from webhook.tls import ServingCertificate

CERTIFICATE_DIRECTORY: Final = "/var/run/secrets/autotls.io/webhook"
# As uvicorn ends when the webhook's own port is taken.
EXIT_PORT: Final = 3
_log: Final = structlog.get_logger("webhook")


def main() -> int:
    """The exit code."""
    configure_logs()
    try:
        config = configured()
        listen = listen_from(os.environ)
        uvloop.run(_run(config, Path(os.environ.get("AUTOTLS_WEBHOOK_TLS", CERTIFICATE_DIRECTORY)), listen))
    except (ConfigError, KubeconfigError) as error:
        _log.error("configuration_refused", error=str(error))
        return EXIT_CONFIGURATION
    except OSError as error:
        _log.error("port_refused", error=str(error))
        return EXIT_PORT
    return 0


def listen_from(environment: Mapping[str, str]) -> Listen:
    """Ports and draining time; the defaults are what the chart expects. Raises ConfigError."""
    try:
        return Listen(
            port=int(environment.get("AUTOTLS_WEBHOOK_PORT", names.WEBHOOK_PORT)),
            health_port=int(environment.get("AUTOTLS_HEALTH_PORT", names.HEALTH_PORT)),
            drain_s=float(environment.get("AUTOTLS_SHUTDOWN_SECONDS", DRAIN_S)),
        )
    except ValueError as error:
        raise ConfigError(
            f"environment: {error}", hint="ports and AUTOTLS_SHUTDOWN_SECONDS are plain numbers"
        ) from error


async def _run(config: MeshConfig, certificate_directory: Path, listen: Listen) -> None:
    certificate = ServingCertificate(certificate_directory)
    async with connect() as api:
        cluster = MirroredCluster(api)
        readiness = Readiness({"certificate": lambda: certificate.loaded, "namespaces": lambda: cluster.synced})
        health = Health(readiness.missing).served(listen.health_port, listen.host or None)
        async with health:
            background = {
                "certificate": certificate.watch(),
                "namespaces": cluster.run_namespaces(),
                "nodes": cluster.run_nodes(),
            }
            app = build_app(config, cluster, draining=lambda: readiness.stopping)
            await serve(app, certificate, readiness, background, listen=listen)


if __name__ == "__main__":
    sys.exit(main())
