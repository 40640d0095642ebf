"""The proxy's UNIX sockets from outside its pod, and HTTP on the one that speaks it.

The sockets can be opened by the proxy's own container alone, so this goes the way of `kubectl exec`: who may not run
commands in the pod may not prove anything about it.
"""

import asyncio
import io
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http.client import HTTPException, HTTPResponse
from typing import Final, Protocol, cast

from cli.errors import CliError
from kube.client import HttpApi
from kube.execute import executing
from mesh import names

ADMIN: Final = "admin.sock"
PROVE: Final = "prove.sock"
# `nc` ends with its standard input; should that be lost with a node's connection, after this many seconds.
_LONGEST_S: Final = 60
_ANSWER_S: Final = 15.0
_END_OF_HEAD: Final = b"\r\n\r\n"


class DoorError(CliError):
    """The proxy cannot be spoken to."""


class Stream(Protocol):
    """A connection; `read` gives empty bytes at its end. Both raise AutotlsError when it breaks."""

    async def send(self, data: bytes) -> None: ...
    async def read(self) -> bytes: ...


class Sockets(Protocol):
    """The seam between a proof and a pod; the tests have the other implementation, for a proxy without Kubernetes."""

    def open(self, name: str) -> AbstractAsyncContextManager[Stream]:
        """A connection to the socket `name` of the folder /run/autotls, until the block ends."""
        ...


class PodSockets:
    """Sockets of a pod's proxy, by `nc` in its container."""

    def __init__(self, api: HttpApi, namespace: str, pod: str) -> None:
        self._api, self._namespace, self._pod = api, namespace, pod

    @asynccontextmanager
    async def open(self, name: str) -> AsyncGenerator[Stream, None]:
        # -q 0: ends, and closes the connection, when standard input ends.
        command = ("timeout", str(_LONGEST_S), "nc", "-q", "0", "-U", f"{names.RUN_MOUNT}/{name}")
        where = {"namespace": self._namespace, "pod": self._pod, "container": names.PROXY_CONTAINER}
        async with executing(self._api, command, **where) as execution:
            yield execution


class _Bytes:
    """What HTTPResponse takes for a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: object) -> io.BytesIO:
        return io.BytesIO(self._data)


class Admin:
    """Envoy's admin interface over one kept connection."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._rest = b""

    async def get(self, path: str) -> str:
        """The body of a GET. Raises DoorError when Envoy does not answer, or not with 200."""
        await self._stream.send(f"GET {path} HTTP/1.1\r\nHost: admin\r\n\r\n".encode())
        try:
            async with asyncio.timeout(_ANSWER_S):
                head = await self._until(_END_OF_HEAD)
                answer = head + await self._body(head.lower())
        except TimeoutError:
            raise DoorError(f"the proxy did not answer within {_ANSWER_S:g} s") from None
        response = HTTPResponse(cast("io.RawIOBase", _Bytes(answer)))  # type: ignore[arg-type]
        try:
            response.begin()
            body = response.read()
        except HTTPException as error:
            raise DoorError(f"the proxy's answer cannot be read: {error}") from error
        if response.status != 200:
            raise DoorError(f"the proxy answered {response.status} to {path.partition('?')[0]}")
        return body.decode(errors="replace")

    async def _body(self, head: bytes) -> bytes:
        """The framed body behind `head`: Envoy's admin interface sends chunks, or a length for short texts."""
        if b"transfer-encoding: chunked" not in head:
            length = head.partition(b"content-length:")[2].split(b"\r\n")[0].strip()
            return await self._exactly(int(length or b"0"))
        body = b""
        while True:
            size = await self._until(b"\r\n")
            body += size
            count = int(size, 16)
            body += await self._exactly(count + 2)
            if count == 0:
                return body

    async def _until(self, mark: bytes) -> bytes:
        while mark not in self._rest:
            await self._more()
        found, _, self._rest = self._rest.partition(mark)
        return found + mark

    async def _exactly(self, count: int) -> bytes:
        while len(self._rest) < count:
            await self._more()
        found, self._rest = self._rest[:count], self._rest[count:]
        return found

    async def _more(self) -> None:
        chunk = await self._stream.read()
        if not chunk:
            raise DoorError("the proxy ended the connection to its admin interface")
        self._rest += chunk
