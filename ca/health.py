"""Health and metrics on port 9090, plain HTTP: for the kubelet and Prometheus."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest


async def _ok(_: web.Request) -> web.Response:
    # Ready on a standby as well: it is ready to take over, and a rollout must not wait for two leaders.
    return web.Response(text="ok\n")


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


@asynccontextmanager
async def serve_health(port: int, *, host: str | None = None) -> AsyncGenerator[None, None]:
    """`/healthz`, `/readyz` and `/metrics` while the context lasts. Raises OSError when the port is taken."""
    app = web.Application()
    app.add_routes([web.get("/healthz", _ok), web.get("/readyz", _ok), web.get("/metrics", _metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield
    finally:
        await runner.cleanup()
