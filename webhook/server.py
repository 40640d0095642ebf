"""The webhook's server and what runs beside it, stopped by us: uvicorn's own signal handling would end the siblings."""

import asyncio
import contextlib
import gc
import signal
from collections.abc import Coroutine, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog
import uvicorn
from fastapi import FastAPI

from mesh import names
from process.health import Readiness
from webhook.tls import ServingCertificate

# Longer than the 90 s for which Go's client keeps an idle connection: the API server closes first, so it never
# sends a review into a connection that we are closing.
_KEEP_ALIVE_S: Final = 120
_GRACE_S: Final = 5
# From "not ready" to the last API server having dropped this replica's address.
DRAIN_S: Final = 5.0

_log: Final = structlog.get_logger("webhook")


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen, and how long to go on serving after SIGTERM (seconds)."""

    # Empty: every address of both families, for clusters of either.
    host: str = ""
    port: int = names.WEBHOOK_PORT
    health_port: int = names.HEALTH_PORT
    drain_s: float = DRAIN_S


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # uvicorn raises SIGTERM again when it is done, which would kill the process before the others are.
        yield


async def serve(
    app: FastAPI,
    certificate: ServingCertificate,
    readiness: Readiness,
    background: Mapping[str, Coroutine[Any, Any, None]],
    *,
    listen: Listen,
) -> None:
    """Serves until SIGTERM or SIGINT, then drains; a second signal cuts the draining short.

    A fault of any part ends all of them: Kubernetes starts the process anew.
    """
    stop, hurry = _signals()
    web = _Server(_config(app, listen, certificate))
    # Not before: the API server would find nobody, and admit the pod without us.
    readiness.require("listening", lambda: web.started)
    async with asyncio.TaskGroup() as group:
        helpers = [group.create_task(work, name=name) for name, work in background.items()]
        serving = group.create_task(web.serve(), name="webhook")
        # What is there now stays for good; without it every collection walks through all the imports.
        gc.collect()
        gc.freeze()
        await stop.wait()
        readiness.stop()
        _log.info("stopping", drain_s=listen.drain_s)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(hurry.wait(), listen.drain_s)
        web.should_exit = True
        await serving
        for helper in helpers:
            helper.cancel()


def _signals() -> tuple[asyncio.Event, asyncio.Event]:
    stop, hurry = asyncio.Event(), asyncio.Event()

    def received() -> None:
        if stop.is_set():
            hurry.set()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, received)
    return stop, hurry


def _config(app: Any, listen: Listen, certificate: ServingCertificate) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=listen.host,
        port=listen.port,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
        ssl_context_factory=lambda _config, _default: certificate.server_context(),
    )
