"""The page server: HTML of the newest snapshot, and the files that the pages need. The edge.

It listens on the pod's loopback alone, so whoever reaches it came through the API server's port-forward and was
authenticated there. What needs more than reading counters, tap and findings, is added by `autotls dashboard`
(cli/front.py), which says so in a header.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from dashboard import pages
from dashboard.model import Snapshot
from dashboard.pages import Frame
from dashboard.views import Choice

# Set by `autotls dashboard` on what it relays. It grants nothing: it only makes the page offer what the command adds.
FRONTED_HEADER: Final = "x-autotls-front"
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Asgi = Callable[[Any, Receive, Send], Awaitable[None]]


def is_loopback(host: str) -> bool:
    """Whether a Host header names this machine: any other name is a web page's that had its DNS name point here."""
    try:
        return urlsplit(f"//{host}").hostname in _LOOPBACK
    except ValueError:
        return False


class Guard:
    """Answers only requests to a loopback name, and puts the security headers on every answer."""

    def __init__(self, app: Asgi) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                extra = [(key.lower().encode(), value.encode()) for key, value in pages.SECURITY_HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        if not is_loopback(host):
            refusal = PlainTextResponse("this page answers to localhost only\n", status_code=421)
            await refusal(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)


def build_app(snapshot: Callable[[], Snapshot], now: Callable[[], datetime]) -> Asgi:
    """The application. Its routes are plain functions, which Starlette runs in threads: a large page stops nobody."""

    def page(draw: Callable[[Snapshot, Frame, Mapping[str, str]], str]) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            frame = Frame(now(), fronted=FRONTED_HEADER in request.headers)
            return HTMLResponse(draw(snapshot(), frame, request.query_params), headers={"Cache-Control": "no-store"})

        return answer

    def workload(request: Request) -> Response:
        key = "/".join(request.path_params[part] for part in ("namespace", "kind", "name"))
        frame = Frame(now(), fronted=FRONTED_HEADER in request.headers)
        text = pages.workload(snapshot(), frame, key)
        if text is None:
            return _problem(404, "No such workload", f"{key} has no pod.", "look at the list of workloads", frame.now)
        return HTMLResponse(text, headers={"Cache-Control": "no-store"})

    def missing(request: Request, _error: Exception) -> Response:
        return _problem(404, "No such page", request.url.path, "go to the overview", now())

    return Starlette(
        routes=[
            Route("/", page(lambda shot, frame, _: pages.overview(shot, frame))),
            Route("/topology", page(lambda shot, frame, query: pages.topology(shot, frame, Choice.parse(query)))),
            Route("/workloads", page(lambda shot, frame, query: pages.workloads(shot, frame, Choice.parse(query)))),
            Route("/workloads/{namespace}/{kind}/{name}", workload),
            Route("/certificates", page(lambda shot, frame, _: pages.certificates(shot, frame))),
            Route("/tap", page(lambda shot, frame, query: pages.tap(shot, frame, dict(query)))),
            Route("/findings", page(lambda shot, frame, _: pages.findings(shot, frame))),
            Mount("/static", StaticFiles(directory=pages.STATIC)),
        ],
        middleware=[Middleware(Guard), Middleware(GZipMiddleware, minimum_size=4096, compresslevel=3)],
        exception_handlers={404: missing},
    )


def _problem(status: int, title: str, message: str, hint: str, now: datetime) -> Response:
    return HTMLResponse(pages.problem(title, message, hint, now), status_code=status)
