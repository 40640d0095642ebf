"""Discovery alone in a process, told by `bench.discovery` what to do; and the bare server it is compared with.

    python -m bench.discovery_server FOLDER SERVICES ENDPOINTS

FOLDER holds the serving certificate. Prints the ports of both servers; then takes commands on standard input, one a
line, and answers each with a line of two numbers.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio

from discovery.ads import Server
from discovery.credentials import ServerCredentials
from discovery.state import State
from mesh.config import MeshConfig
from mesh.spiffe import TrustDomain
from tests.discovery.certificates import now_utc
from tests.discovery.cluster import put
from tests.discovery.objects import endpoint_slice, pod, service

_STATM: Final = Path("/proc/self/statm")


def endpoints_of(number: int, count: int, extra: int = 0) -> Any:
    addresses = [f"10.{number // 250}.{number % 250}.{i + 1}" for i in range(count)]
    return endpoint_slice(f"web{number}", *addresses, *([f"10.250.0.{extra}"] if extra else []))


async def serve(folder: Path, services: int, endpoints: int) -> None:
    """`change` changes one endpoint of one Service; `rss` prints the resident bytes; `write N` is the baseline."""
    state = State(MeshConfig())
    put(state.world, pod("client", "127.0.0.1", service_account="client"))
    for number in range(services):
        for address in endpoints_of(number, endpoints).endpoints or ():
            ip = address.addresses[0]
            put(state.world, pod(f"web-{ip.replace('.', '-')}", ip, service_account=f"web{number % 10}"))
        put(state.world, service(f"web{number}", f"10.96.{number // 250}.{number % 250 + 1}"))
        put(state.world, endpoints_of(number, endpoints))
    credentials = ServerCredentials(folder)
    credentials.load()
    asyncio.create_task(state.run())  # noqa: RUF006 - ends with the process
    while state.world.stale:
        await state.worked()
    server = Server(state, TrustDomain("cluster.local"), credentials, date=now_utc, address="127.0.0.1:0")
    await server.start()
    bare = Bare(credentials)
    await bare.server.start()
    print(server.port, bare.port, flush=True)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    changes = 0
    while line := (await commands.readline()).decode().split():
        if line[0] == "change":
            changes += 1
            started, cpu = time.monotonic(), time.process_time()
            put(state.world, endpoints_of(7 % services, endpoints, changes))
            state.note()
            print(started, cpu, flush=True)
        elif line[0] == "write":
            started, cpu = time.monotonic(), time.process_time()
            bare.write(int(line[1]))
            print(started, cpu, flush=True)
        elif line[0] == "rss":
            pages = int(_STATM.read_text().split()[1])
            print(pages * os.sysconf("SC_PAGE_SIZE"), time.process_time(), flush=True)


class Bare:
    """The least that can be done: a stream, an event, a write."""

    def __init__(self, credentials: ServerCredentials) -> None:
        self._waiting: list[asyncio.Future[bytes]] = []
        handler: Any = grpc.stream_stream_rpc_method_handler(self._stream)  # pyright: ignore[reportUnknownVariableType]
        self.server = grpc.aio.server()
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare", {"Stream": handler}),))
        self.port = self.server.add_secure_port("127.0.0.1:0", credentials.server_credentials())

    async def _stream(self, _requests: Any, context: Any) -> None:
        await context.write(b"hello")
        while True:
            waiting: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await context.write(await waiting)

    def write(self, size: int) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(bytes(size))


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
