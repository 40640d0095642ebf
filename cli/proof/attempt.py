"""One real connection by a pod's proxy, and what the proxy itself counted of it. The edge.

The proxy's counters are all of the pod's, so the application's own connections are in them too. What was counted while
ours was open includes ours; when all of it came out alike, so did ours (cli.proof.judgement).
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cli.proof import envoy
from cli.proof.door import PROVE, Admin, Sockets, Stream
from cli.proof.envoy import Counted, Host

# Longer than six attempts of a second each (discovery.clusters, discovery.listeners) with their pauses.
_CONNECT_S: Final = 12.0
# The server's proxy dials the application once the handshake is over; when nothing listens it closes at once.
_LINGER_S: Final = 0.5
_COUNTED_S: Final = 5.0
_PAUSE_S: Final = 0.05
_REPLY_BYTES: Final = 200


@dataclass(frozen=True, slots=True)
class Route:
    """What is dialled: from the pod's own `source` to `address`:`port`, which the proxy gives to `cluster`."""

    source: str
    address: str
    port: int
    cluster: str

    @property
    def header(self) -> bytes:
        """haproxy's PROXY protocol, version 1: the destination is what a redirect would have restored."""
        family = "TCP6" if ":" in self.address else "TCP4"
        return f"PROXY {family} {self.source} {self.address} 1 {self.port}\r\n".encode()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What happened. `taken`: endpoints that got a connection or request; `ended`: the other side closed at once;
    `failures`: what the proxy counted beside (`ssl.fail_verify_san`), `hosts`: the cluster's addresses afterwards."""

    counted: Counted
    taken: tuple[str, ...]
    ended: bool
    reply: str
    failures: Mapping[str, int]
    hosts: tuple[Host, ...]


async def try_once(sockets: Sockets, admin: Admin, route: Route, request: bytes) -> Evidence:
    """Raises AutotlsError when the proxy cannot be spoken to."""
    looker = _Looker(admin, route.cluster)
    before, before_failures = await looker.counted(), await looker.failures()
    before_hosts = {host.address: host.taken for host in await looker.hosts()}
    async with sockets.open(PROVE) as stream:
        reader = asyncio.create_task(_read(stream, until_reply=bool(request)), name="prove_reply")
        try:
            await stream.send(route.header + request)
            taken = await looker.taken_since(before_hosts, reader)
            await asyncio.wait({reader}, timeout=_CONNECT_S if request else _LINGER_S)
            ended, reply = reader.result() if reader.done() else (False, b"")
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
    return Evidence(
        counted=await looker.counted_since(before),
        taken=taken,
        ended=ended,
        reply=reply.partition(b"\r\n")[0].decode(errors="replace"),
        failures={key: n - before_failures.get(key, 0) for key, n in (await looker.failures()).items()},
        hosts=await looker.hosts(),
    )


async def _read(stream: Stream, *, until_reply: bool) -> tuple[bool, bytes]:
    """Whether the connection was ended, and how its answer begins."""
    reply = b""
    while chunk := await stream.read():
        reply = (reply + chunk)[:_REPLY_BYTES]
        if until_reply and b"\r\n" in reply:
            return False, reply
    return True, reply


class _Looker:
    """Looks at the counters of one cluster."""

    def __init__(self, admin: Admin, cluster: str) -> None:
        self._admin, self._cluster = admin, cluster

    async def hosts(self) -> tuple[Host, ...]:
        return envoy.parse_hosts(await self._admin.get(envoy.hosts_path(self._cluster)), self._cluster)

    async def counted(self) -> Counted:
        return envoy.parse_counted(await self._admin.get(envoy.counters_path()), self._cluster)

    async def failures(self) -> Mapping[str, int]:
        found = envoy.parse_numbers(await self._admin.get(envoy.failures_path(self._cluster)))
        return {name.split(".", 2)[-1]: value for name, value in found.items()}

    async def taken_since(
        self, before: Mapping[str, int], reader: "asyncio.Task[tuple[bool, bytes]]"
    ) -> tuple[str, ...]:
        """The addresses that were given a connection; none when the proxy gave up, or none was in time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _CONNECT_S
        while True:
            over = reader.done() or loop.time() > until
            taken = tuple(host.address for host in await self.hosts() if host.taken > before.get(host.address, 0))
            if taken or over:
                return taken
            await asyncio.sleep(_PAUSE_S)

    async def counted_since(self, before: Counted) -> Counted:
        """A connection is counted once it is closed, which the proxy's thread finds out a moment later."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _COUNTED_S
        while True:
            found = envoy.grown(before, await self.counted())
            if found or loop.time() > until:
                return found
            await asyncio.sleep(_PAUSE_S)
