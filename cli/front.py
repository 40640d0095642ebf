"""What `autotls dashboard` serves on this machine: the pages of the cluster, and what only the user may see. The edge.

Pages come from the dashboard's pod by port-forward. Two things are added with the user's own rights, so that the pod
needs none: live tap and the findings of `check`. Nobody but the user may have these either, though others may share the
machine: the first visit brings a key in the address, which becomes a cookie.
"""

import hmac
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Final, Protocol
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from yarl import URL

from dashboard import pages
from dashboard.app import FRONTED_HEADER
from dashboard.model import Checked
from mesh.errors import AutotlsError
from mesh.version import VERSION

_TIMEOUT: Final = aiohttp.ClientTimeout(total=20)
# What a page needs of the answer; everything else is decided here.
_RELAYED: Final = frozenset({"content-type", "content-encoding", "cache-control", "etag", "last-modified"})
_ASKED: Final = frozenset({"accept-encoding", "if-none-match", "if-modified-since"})
_OWN: Final = "/front/static/"

# A Server-Sent Event: its name and its data, JSON on one line.
Event = tuple[str, str]


class Backend(Protocol):
    """Where the pages are. Raises AutotlsError when they cannot be reached."""

    async def address(self) -> str:
        """`http://127.0.0.1:PORT` of a connection to the pod."""
        ...

    async def failed(self, address: str) -> None:
        """That address did not answer: look for the pod anew."""
        ...

    @property
    def reason(self) -> str:
        """Why the last connection failed, if the API server said."""
        ...


class Front:
    """The server's application. `key` lets in; `port` is its own, known once it listens."""

    def __init__(
        self,
        backend: Backend,
        *,
        key: str,
        tap: Callable[[Mapping[str, str]], AsyncGenerator[Event, None]],
        check: Callable[[], Awaitable[Iterable[Checked]]],
        now: Callable[[], datetime],
    ) -> None:
        self._backend = backend
        self.port = 0
        self._key = key
        self._tap, self._check, self._now = tap, check, now

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard])
        application.router.add_get("/tap/stream", self._stream)
        application.router.add_get("/findings/content", self._findings)
        application.router.add_get(_OWN + "{name}", self._static)
        application.router.add_get("/{path:.*}", self._relay)
        return application

    @property
    def _cookie(self) -> str:
        # Browsers keep cookies by host, not by port: two fronts must not take each other's.
        return f"autotls-{self.port}"

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        refusal = self._refusal(request)
        answer = refusal if refusal is not None else await handler(request)
        if not answer.prepared:
            answer.headers.update(pages.SECURITY_HEADERS)
        return answer

    def _refusal(self, request: web.Request) -> web.Response | None:
        """The answer to whoever may not ask; None for the user's own browser.

        The Host must be ours, else another site could have its name point here (DNS rebinding); a request that another
        site started is refused whatever it asks for (Fetch Metadata); and the key must be there.
        """
        hosts = {f"127.0.0.1:{self.port}", f"localhost:{self.port}"}
        if request.host not in hosts:
            return web.Response(status=421, text=f"open http://127.0.0.1:{self.port}\n")
        site, origin = request.headers.get("Sec-Fetch-Site", "none"), request.headers.get("Origin")
        if site not in ("none", "same-origin") or (origin is not None and urlsplit(origin).netloc not in hosts):
            return web.Response(status=403, text="not for other sites\n")
        offered = request.query.get("key", "")
        if offered and hmac.compare_digest(offered.encode(), self._key.encode()):
            answer = web.Response(status=303, headers={"Location": request.path})
            answer.set_cookie(self._cookie, self._key, httponly=True, samesite="Strict", path="/")
            return answer
        if not hmac.compare_digest(request.cookies.get(self._cookie, "").encode(), self._key.encode()):
            return web.Response(status=403, text="open the address that autotls dashboard printed: it has a key\n")
        return None

    async def _relay(self, request: web.Request) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() in _ASKED}
        headers[FRONTED_HEADER] = VERSION
        # A pod that has been replaced shows only when it is asked; then its successor is.
        for last in (False, True):
            address = ""
            try:
                address = await self._backend.address()
                return await self._fetch(address + request.raw_path, headers)
            except AutotlsError as error:
                return self._gone(error.message, error.hint)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                await self._backend.failed(address)
                if last:
                    reason = self._backend.reason or type(error).__name__
                    return self._gone(
                        f"the dashboard's pod does not answer: {reason}", "it is asked again all the time"
                    )
        raise AssertionError("the second attempt returns")

    async def _fetch(self, url: str, headers: Mapping[str, str]) -> web.Response:
        async with (
            # Compressed only if the browser asked for it: the answer is passed on as it is.
            aiohttp.ClientSession(
                auto_decompress=False, timeout=_TIMEOUT, skip_auto_headers=("Accept-Encoding",)
            ) as session,
            session.get(URL(url, encoded=True), headers=headers, allow_redirects=False) as answer,
        ):
            body = await answer.read()
            kept = {name: value for name, value in answer.headers.items() if name.lower() in _RELAYED}
            return web.Response(status=answer.status, body=body, headers=kept)

    def _gone(self, message: str, hint: str) -> web.Response:
        page = pages.problem("The dashboard cannot be reached", message, hint, self._now())
        return web.Response(status=502, text=page.replace('="/static/', f'="{_OWN}'), content_type="text/html")

    async def _static(self, request: web.Request) -> web.StreamResponse:
        """Style and scripts of this command's own version, for the page that says that the pod is gone."""
        path = pages.STATIC / request.match_info["name"]
        if path.parent != pages.STATIC or not path.is_file():
            return web.Response(status=404)
        return web.FileResponse(path)

    async def _findings(self, request: web.Request) -> web.StreamResponse:
        outcomes = await self._check()
        text = pages.checked(outcomes, self._now())
        return web.Response(text=text, content_type="text/html", headers={"Cache-Control": "no-store"})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Live entries until the browser goes; the server cancels this handler then, which ends the tap."""
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        answer.headers.update(pages.SECURITY_HEADERS)
        await answer.prepare(request)
        async with aclosing(self._tap(dict(request.query))) as events:
            async for name, data in events:
                await answer.write(f"event: {name}\ndata: {data}\n\n".encode())
        return answer
