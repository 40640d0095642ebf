"""One request to the API server: bytes in, bytes or a typed error out.

aiohttp carries it; nothing here decodes an object. Why not the official client: docs/adr/0027-own-kubeconfig.md.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Protocol, cast
from urllib.parse import quote

import aiohttp
from yarl import URL

from kube.access import Access
from kube.config import load_access
from kube.errors import TIMED_OUT, ApiError, UnreachableError, error_from_body
from kube.metrics import REQUESTS

Query = Sequence[tuple[str, str]]

CONNECT_TIMEOUT_S: Final = 10.0
# The API server sends a bookmark about once a minute when anything happens (cacher.go: defaultBookmarkFrequency), so
# a watch that is silent for longer may sit on a dead connection, where it would stay until its lifetime is over.
WATCH_IDLE_TIMEOUT_S: Final = 90.0
USER_AGENT: Final = "autotls"
# More requests at the same time wait for each other.
MOST_CONNECTIONS: Final = 100
# A watch event may be as large as an object: 1.5 MB in etcd, and more as JSON.
READ_BUFFER_BYTES: Final = 2 * 1024 * 1024


class Api(Protocol):
    """The seam between autotls and a cluster; `tests/fakes/kubeapi.py` is the other implementation."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: bytes | None = None,
        content_type: str = "application/json",
        timeout_s: float = 15.0,
    ) -> bytes:
        """The body of a 2xx answer. Raises ApiError; UnreachableError after `timeout_s` seconds."""
        ...

    def lines(
        self, path: str, *, query: Query = (), timeout_s: float
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The lines of a streamed GET (a watch), for at most `timeout_s` seconds; ends when the server ends it.

        Raises ApiError, on entry for an error answer and while iterating when the connection breaks.
        """
        ...


@asynccontextmanager
async def connect(*, kubeconfig: str | None = None, context: str | None = None) -> AsyncGenerator["HttpApi", None]:
    """A client for the cluster of `kubeconfig` and `context`; in a Pod, without either, for its own cluster.

    Raises KubeconfigError. No request is made before the first one that the caller makes.
    """
    client = HttpApi(await load_access(kubeconfig=kubeconfig, context=context))
    try:
        yield client
    finally:
        await client.close()


class HttpApi:
    """Api over HTTPS. Bound to the event loop of its first request."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"HttpApi({self._access.server!r})"

    async def close(self) -> None:
        if self._session:
            await self._session.close()

    async def bearer_token(self) -> str:
        """The token that the API server is shown, fresh; empty where a client certificate is the credential."""
        scheme, _, token = (await self._authorization()).partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: bytes | None = None,
        content_type: str = "application/json",
        timeout_s: float = 15.0,
    ) -> bytes:
        limits = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(timeout_s, CONNECT_TIMEOUT_S))
        try:
            async with await self._send(method, path, query, limits, body=body, content_type=content_type) as response:
                await _check(response, method, path)
                return await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(method, path, error) from error

    @asynccontextmanager
    async def lines(
        self, path: str, *, query: Query = (), timeout_s: float
    ) -> AsyncGenerator[AsyncIterator[bytes], None]:
        limits = aiohttp.ClientTimeout(
            total=timeout_s, sock_connect=CONNECT_TIMEOUT_S, sock_read=min(timeout_s, WATCH_IDLE_TIMEOUT_S)
        )
        try:
            response = await self._send("GET", path, query, limits)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable("WATCH", path, error) from error
        try:
            await _check(response, "WATCH", path)
            yield _split(response.content, path)
        finally:
            # close, not release: the rest of a watch is never read, so the connection cannot be used again.
            response.close()

    @asynccontextmanager
    async def websocket(
        self, path: str, *, query: Query = (), protocol: str
    ) -> AsyncGenerator["aiohttp.ClientWebSocketResponse[bool]", None]:
        """A WebSocket to a streaming subresource (`portforward`, `exec`). Raises ApiError on entry."""
        url, options = await self._prepare(path, query, {})
        try:
            # Not limited: a frame is as large as what the other side read at once.
            upgrade = cast(Any, self._connected()).ws_connect(url, protocols=(protocol,), max_msg_size=0, **options)
            socket: aiohttp.ClientWebSocketResponse[bool] = await upgrade
        except aiohttp.WSServerHandshakeError as error:
            REQUESTS.labels("CONNECT", str(error.status)).inc()
            raise error_from_body(error.status, b"", path=path, retry_after=None) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable("CONNECT", path, error) from error
        REQUESTS.labels("CONNECT", "101").inc()
        try:
            yield socket
        finally:
            await socket.close()

    async def _send(
        self,
        method: str,
        path: str,
        query: Query,
        limits: aiohttp.ClientTimeout,
        *,
        body: bytes | None = None,
        content_type: str = "",
    ) -> aiohttp.ClientResponse:
        # Compression is declined as controllers of Kubernetes do: the API server is near, its CPU and ours are dear.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if body is not None:
            headers["Content-Type"] = content_type
        url, options = await self._prepare(path, query, headers)
        return await self._connected().request(method, url, data=body, timeout=limits, allow_redirects=False, **options)

    async def _prepare(self, path: str, query: Query, headers: dict[str, str]) -> tuple[URL, dict[str, Any]]:
        """The URL and what aiohttp must know: credentials, server name, proxy."""
        if authorization := await self._authorization():
            headers["Authorization"] = authorization
        options: dict[str, Any] = {"headers": headers}
        if self._access.server_name:
            options["server_hostname"] = self._access.server_name
        asked = "&".join(f"{name}={quote(value)}" for name, value in query)
        # encoded=True: the query is quoted already, and a second quoting would change continue tokens.
        return URL(f"{self._access.server}{path}{'?' if asked else ''}{asked}", encoded=True), options

    async def _authorization(self) -> str:
        return await self._access.authorization() if self._access.authorization else ""

    def _connected(self) -> aiohttp.ClientSession:
        # Here and not at the beginning: a session belongs to the event loop that it is made in.
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=MOST_CONNECTIONS, ssl=self._access.tls or True),
                headers={"User-Agent": USER_AGENT},
                read_bufsize=READ_BUFFER_BYTES,
                proxy=self._access.proxy or None,
            )
        return self._session


async def _check(response: aiohttp.ClientResponse, verb: str, path: str) -> None:
    REQUESTS.labels(verb, str(response.status)).inc()
    if response.status >= 300:
        try:
            body = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            body = b""  # the status came, and says what happened; the words were lost on the way
        raise error_from_body(response.status, body, path=path, retry_after=response.headers.get("Retry-After"))


def _unreachable(verb: str, path: str, error: BaseException) -> ApiError:
    REQUESTS.labels(verb, "0").inc()
    reason = TIMED_OUT if isinstance(error, TimeoutError) else type(error).__name__
    return UnreachableError(reason, f"{verb} {path}: {error}".rstrip(": "))


async def _split(content: aiohttp.StreamReader, path: str) -> AsyncIterator[bytes]:
    """The lines of `content`; StreamReader.readline would raise on objects beyond its buffer."""
    rest = b""
    try:
        async for chunk in content.iter_any():
            *complete, rest = (rest + chunk).split(b"\n")
            for line in complete:
                if line:
                    yield line
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise _unreachable("WATCH", path, error) from error
