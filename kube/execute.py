"""A command in a running container: what `kubectl exec` does, without a terminal.

The protocol is the API server's `exec` over WebSocket (apimachinery pkg/util/remotecommand/constants.go): the first
byte of a frame is its channel. Half-closing does not exist in this version: standard input ends with the WebSocket.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
import msgspec

from kube.client import HttpApi
from kube.errors import UnreachableError, scrub
from mesh.pod import Wire

PROTOCOL: Final = "v4.channel.k8s.io"
_STDIN, _STDOUT, _STDERR, _STATUS = range(4)


class _Status(Wire, frozen=True):
    status: str = ""
    message: str = ""


class Execution:
    """A command that runs; its standard output ends when it has."""

    def __init__(self, socket: "aiohttp.ClientWebSocketResponse[bool]") -> None:
        self._socket = socket
        self._complaint = b""
        self._ended = False

    async def send(self, data: bytes) -> None:
        """To standard input. Raises UnreachableError when the connection is gone."""
        try:
            await self._socket.send_bytes(bytes((_STDIN,)) + data)
        except (aiohttp.ClientError, ConnectionError) as error:
            raise UnreachableError("Exec", scrub(str(error))) from error

    async def read(self) -> bytes:
        """What comes next on standard output; empty once the command has ended well.

        Raises UnreachableError when it could not be started, or ended with an error: then with its standard error.
        """
        while not self._ended:
            message = await self._socket.receive()
            if message.type is not aiohttp.WSMsgType.BINARY:
                self._ended = True
                break
            frame: bytes = message.data
            channel, data = frame[:1], frame[1:]
            if channel == bytes((_STDOUT,)) and data:
                return data
            if channel == bytes((_STDERR,)):
                self._complaint += data
            elif channel == bytes((_STATUS,)):
                self._ended = True
                self._judge(data)
        return b""

    def _judge(self, data: bytes) -> None:
        status = msgspec.json.decode(data, type=_Status)
        if status.status != "Success":
            said = self._complaint.decode(errors="replace").strip() or status.message
            raise UnreachableError("Exec", scrub(said))


@asynccontextmanager
async def executing(
    api: HttpApi, command: Sequence[str], *, namespace: str, pod: str, container: str
) -> AsyncGenerator[Execution, None]:
    """`command` in `container`, while the block lasts. Needs `create` (before 1.35 `get`) on `pods/exec`.

    Raises ApiError on entry. At the end of the block the command's standard input ends; it is not killed.
    """
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/exec"
    streams = (("stdin", "true"), ("stdout", "true"), ("stderr", "true"))
    query = (("container", container), *streams, *(("command", word) for word in command))
    async with api.websocket(path, query=query, protocol=PROTOCOL) as socket:
        yield Execution(socket)
