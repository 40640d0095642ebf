"""Health and metrics on their own port, without TLS: for the kubelet and Prometheus."""

from collections.abc import Callable, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


class Readiness:
    """Named conditions of readiness; after `stop` never ready again, so that the endpoints forget this replica."""

    def __init__(self, conditions: Mapping[str, Callable[[], bool]]) -> None:
        self._conditions = conditions
        self._stopping = False

    @property
    def stopping(self) -> bool:
        return self._stopping

    def stop(self) -> None:
        self._stopping = True

    def missing(self) -> tuple[str, ...]:
        """What keeps the process from being ready; empty when it is."""
        if self._stopping:
            return ("stopping",)
        return tuple(name for name, holds in self._conditions.items() if not holds())


def build_health_app(readiness: Readiness) -> Starlette:
    """`/healthz` (the loop turns), `/readyz` (it can answer reviews), `/metrics`."""

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        missing = readiness.missing()
        return PlainTextResponse(
            "ok\n" if not missing else f"not ready: {', '.join(missing)}\n", 503 if missing else 200
        )

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)],
    )
