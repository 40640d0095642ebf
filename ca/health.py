"""Health and metrics on port 9090, plain HTTP: for the kubelet and Prometheus."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest


async def _ok(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


@asynccontextmanager
async def serve_health(port: int, *, unready: Callable[[], str], host: str | None = None) -> AsyncGenerator[None, None]:
    """`/healthz`, `/readyz` and `/metrics` while the context lasts; `unready` says why this replica is not ready,
    empty when it is. Raises OSError when the port is taken."""

    async def ready(_: web.Request) -> web.Response:
        reason = unready()
        return web.Response(status=503 if reason else 200, text=f"{reason or 'ok'}\n")

    app = web.Application()
    app.add_routes([web.get("/healthz", _ok), web.get("/readyz", ready), web.get("/metrics", _metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield
    finally:
        await runner.cleanup()
