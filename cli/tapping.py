"""A tap from this side: every replica of discovery is asked for the same, and what they tell comes as one stream.

Each replica has the access-log streams of some proxies and the configuration streams of others, so all of them must
know of the tap. They are reached by port-forwarding; the tap ends with the connections. Imported by `tap` and
`dashboard`.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from discovery.budget import Budget
from discovery.entries import Entry, Line, Selection
from kube.client import HttpApi
from kube.errors import ApiError, ForbiddenError, NotFoundError, UnauthorizedError
from kube.portforward import forwarded
from kube.read import list_all
from kube.reviews import issue_token
from mesh import names
from mesh.errors import AutotlsError
from mesh.pod import Pod

# The API server's least; a token is shown when a connection is opened, and a new one is asked for then.
TOKEN_LIFETIME_S: Final = 600
# Seconds between two looks at which replicas there are, and between two signs of life.
LOOK_S: Final = 3.0
ALIVE_S: Final = 5.0
# Connections that may fail one after the other before there is no hope.
PATIENCE: Final = 6
# Entries that wait for whoever reads them.
MAX_WAITING: Final = 5000
_ANSWER_S: Final = 20.0
_MAX_LINE_BYTES: Final = 1024 * 1024
_SELECTOR: Final = "app.kubernetes.io/name=autotls,app.kubernetes.io/component=discovery"

_decode: Final = msgspec.json.Decoder(Line).decode
Token = Callable[[], Awaitable[str]]


class TapError(AutotlsError):
    """The tap was refused, or no replica of discovery can be reached."""


@dataclass(frozen=True, slots=True)
class Status:
    """How a tap is doing: replicas that take part, proxies that are tapped, and entries that were left out since it
    began: `skipped` by max_rps, `lost` because they came too fast."""

    replicas: int = 0
    proxies: int = 0
    skipped: int = 0
    lost: int = 0


async def token_for(api: HttpApi, control_plane: str, account: tuple[str, str] | None) -> str:
    """What discovery is shown: the token of the kubeconfig, or, where it has none or `account` (namespace, name) is
    given, a short one that is good for nothing but taps. Raises TapError, ApiError."""
    if account is None and (own := await api.bearer_token()):
        return own
    namespace, name = account or (control_plane, names.TAP)
    try:
        return await issue_token(
            api, namespace=namespace, service_account=name, audience=names.TAP, lifetime_s=TOKEN_LIFETIME_S
        )
    except (ForbiddenError, NotFoundError) as error:
        raise TapError(
            f"no token of ServiceAccount {namespace}/{name} can be had: {error.message}",
            hint="--service-account NAMESPACE/NAME names one that you may create tokens of, and that may tap",
        ) from error


@asynccontextmanager
async def tapping(
    api: HttpApi, control_plane: str, selection: Selection, token: Token, *, clock: Callable[[], float] = time.monotonic
) -> AsyncGenerator[AsyncIterator[Entry | Status], None]:
    """What happens from now on, and a Status whenever that changes; the tap lasts as long as the block.

    The iterator raises TapError when the tap is refused or ended, ApiError when the cluster cannot be asked.
    """
    tap = _Tap(api, control_plane, selection, token, clock)
    looking = asyncio.create_task(tap.run(), name="tap-look")
    try:
        yield tap.told()
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


@dataclass(slots=True)
class _Replica:
    task: "asyncio.Task[None]"
    proxies: int = 0
    connected: bool = False


class _Tap:
    def __init__(
        self, api: HttpApi, control_plane: str, selection: Selection, token: Token, clock: Callable[[], float]
    ) -> None:
        self._api, self._control_plane, self._selection, self._token = api, control_plane, selection, token
        self._clock = clock
        self._budget = Budget(selection.max_rps, clock()) if selection.max_rps else None
        self._replicas: dict[str, _Replica] = {}
        self._waiting: asyncio.Queue[Entry | Status | Exception] = asyncio.Queue(MAX_WAITING)
        self._skipped = self._lost = self._failures = 0
        self._said = Status()

    async def told(self) -> AsyncGenerator[Entry | Status, None]:
        while True:
            found = await self._waiting.get()
            if isinstance(found, Exception):
                raise found
            yield found

    async def run(self) -> None:
        """For ever: taps through the replicas that there are, and gives up when there was never one."""
        try:
            while True:
                running = await self._running()
                for name in self._replicas.keys() - running:
                    self._replicas.pop(name).task.cancel()
                for name in running - self._replicas.keys():
                    task = asyncio.create_task(self._through(name), name=f"tap {name}")
                    self._replicas[name] = _Replica(task)
                self._say()
                await asyncio.sleep(LOOK_S)
        except AutotlsError as error:
            self._put(error)
        finally:
            tasks = [replica.task for replica in self._replicas.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _running(self) -> set[str]:
        path = f"/api/v1/namespaces/{self._control_plane}/pods"
        pods = await list_all(self._api, path, Pod, label_selector=_SELECTOR)
        found = {pod.metadata.name for pod in pods if _runs(pod)}
        if not found and not self._replicas:
            raise TapError(
                f"no replica of discovery runs in namespace {self._control_plane}", hint="autotls check says more"
            )
        return found

    async def _through(self, pod: str) -> None:
        """Taps through one replica until it is gone; the next look tries again."""
        complaints: list[ApiError] = []
        try:
            async with forwarded(
                self._api, namespace=self._control_plane, pod=pod, port=names.TAP_PORT, complain=complaints.append
            ) as port:
                await self._converse(pod, port)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            self._failed(pod, complaints)
        except AutotlsError as error:
            self._put(error)
        finally:
            self._replicas.pop(pod, None)
            self._say()

    def _failed(self, pod: str, complaints: list[ApiError]) -> None:
        """One replica less; told only when it is no use to go on."""
        self._failures += 1
        last = complaints[-1] if complaints else None
        if isinstance(last, ForbiddenError | UnauthorizedError):
            self._put(last)
        elif self._failures >= PATIENCE and not any(replica.connected for replica in self._replicas.values()):
            why = last.message if last else "the connection ended"
            self._put(TapError(f"discovery cannot be reached in {self._control_plane}/{pod}: {why}"))

    async def _converse(self, pod: str, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_MAX_LINE_BYTES)
        living = asyncio.create_task(_live(writer), name="tap-alive")
        try:
            async with asyncio.timeout(_ANSWER_S):
                writer.write(_request(self._selection, await self._token()))
                head = await reader.readuntil(b"\r\n\r\n")
            if b" 101 " not in head.split(b"\r\n", 1)[0]:
                self._refused(await reader.readline())
            while text := await reader.readline():
                self._take(pod, text)
        finally:
            living.cancel()
            writer.close()

    def _refused(self, text: bytes) -> None:
        """Raises TapError."""
        try:
            line = _decode(text)
        except msgspec.MsgspecError:
            line = Line()
        raise TapError(line.error or "discovery refused the tap without saying why", hint=line.hint)

    def _take(self, pod: str, text: bytes) -> None:
        """Raises TapError when discovery says that the tap is over."""
        try:
            line = _decode(text)
        except msgspec.MsgspecError:
            self._lost += 1
            return
        if line.error:
            raise TapError(line.error, hint=line.hint)
        if line.entry is not None:
            if self._budget is None or self._budget.take(1, self._clock()):
                self._put(line.entry)
            else:
                self._skipped += 1
        if line.proxies is not None and (replica := self._replicas.get(pod)):
            replica.proxies, replica.connected = line.proxies, True
            self._skipped += line.skipped
            self._lost += line.lost
            self._failures = 0
            self._say()

    def _say(self) -> None:
        here = [replica for replica in self._replicas.values() if replica.connected]
        proxies = sum(replica.proxies for replica in here)
        status = Status(len(here), proxies, self._skipped, self._lost)
        # Not while some replica has not answered yet: the proxies may all be its.
        if status != self._said and len(here) == len(self._replicas):
            self._said = status
            self._put(status)

    def _put(self, told: "Entry | Status | Exception") -> None:
        if self._waiting.full():
            self._waiting.get_nowait()
            self._lost += 1
        self._waiting.put_nowait(told)


def _runs(pod: Pod) -> bool:
    return pod.status.phase == "Running" and pod.metadata.deletion_timestamp is None


async def _live(writer: asyncio.StreamWriter) -> None:
    """Signs of life, for ever: see discovery/tap_server.py."""
    with suppress(OSError):
        while True:
            await asyncio.sleep(ALIVE_S)
            writer.write(b"\n")
            await writer.drain()


def _request(selection: Selection, token: str) -> bytes:
    body = msgspec.json.encode(selection)
    head = (
        f"POST /tap HTTP/1.1\r\nHost: discovery\r\nConnection: Upgrade\r\nUpgrade: {names.TAP}\r\n"
        f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("latin-1", errors="replace") + body
