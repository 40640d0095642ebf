"""A real ADS server on the loopback, and channels to it with certificates of the test's own authority."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio

from discovery.ads import Server
from discovery.credentials import ServerCredentials
from discovery.sink import Consumer
from discovery.state import State
from mesh.spiffe import TrustDomain
from tests.discovery.certificates import SERVER_NAME, ControlPlaneAuthority, now_utc
from tests.discovery.objects import identity
from tests.proxy.certificates import Leaf, swap_identity

AUTHORITY = ControlPlaneAuthority()


@asynccontextmanager
async def serving(
    state: State,
    folder: Path,
    consumers: Sequence[Consumer] = (),
    *,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Server]:
    swap_identity(folder, AUTHORITY.server().files())
    credentials = ServerCredentials(folder)
    credentials.load()
    server = Server(
        state,
        TrustDomain("cluster.local"),
        credentials,
        date=now_utc,
        address="[::]:0",
        clock=clock,
        consumers=consumers,
    )
    tasks = [asyncio.create_task(state.run()), asyncio.create_task(server.sweep())]
    while state.world.stale:
        await state.worked()
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)
        for task in tasks:
            task.cancel()


def channel(server: Server, leaf: Leaf | None, *, address: str = "127.0.0.1") -> grpc.aio.Channel:
    """Calls come from 127.0.0.1 whatever the `address` of the server."""
    files = (leaf.key, leaf.certificate) if leaf else (None, None)
    credentials = grpc.ssl_channel_credentials(AUTHORITY.pem, *files)
    options = (("grpc.ssl_target_name_override", SERVER_NAME),)
    return grpc.aio.secure_channel(f"{address}:{server.port}", credentials, options)


def client_leaf(name: str = "client") -> Leaf:
    return AUTHORITY.leaf(identity(name))
