"""One endpoint changes: how long until the last of 1,000 connected proxies has heard of it.

    python -m bench.discovery [--clients N] [--services N] [--endpoints N] [--rounds N]

Discovery runs alone on one core with mutual TLS and delta ADS, the clients on the others. The baseline is a bare
grpc.aio server, same core, same TLS, same number of streams, which writes one ready-made message of that size to each.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio

from discovery.ads import METHOD, Server
from discovery.api import discovery_pb2
from discovery.credentials import ServerCredentials
from discovery.resources import CLUSTER, ENDPOINTS, LISTENER
from discovery.state import State
from mesh.config import MeshConfig
from mesh.spiffe import TrustDomain
from tests.discovery.certificates import SERVER_NAME, ControlPlaneAuthority, now_utc
from tests.discovery.cluster import put
from tests.discovery.objects import endpoint_slice, identity, pod, service
from tests.proxy.certificates import swap_identity

BUDGET_S: Final = 0.5
BUDGET_BYTES: Final = 220 * 1024 * 1024
CONNECTING: Final = 32
_STATM: Final = Path("/proc/self/statm")


def endpoints_of(number: int, count: int, extra: int = 0) -> Any:
    addresses = [f"10.{number // 250}.{number % 250}.{i + 1}" for i in range(count)]
    return endpoint_slice(f"web{number}", *addresses, *([f"10.250.0.{extra}"] if extra else []))


# ---- the server's process: commands on standard input, answers on standard output ----


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


# ---- the clients ----


@dataclass(frozen=True, slots=True)
class Files:
    folder: Path
    credentials: grpc.ChannelCredentials


def _channel(port: int, files: Files) -> grpc.aio.Channel:
    options = (("grpc.ssl_target_name_override", SERVER_NAME), ("grpc.use_local_subchannel_pool", 1))
    return grpc.aio.secure_channel(f"127.0.0.1:{port}", files.credentials, options)


class Client:
    """A proxy as far as the protocol goes: asks for everything once, acknowledges, then notes when it is told more."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._call: Any = None
        self.told = asyncio.Event()
        self.size = 0
        self.received = 0

    async def connect(self) -> None:
        # Not before: a stream that says nothing is closed after a while.
        self._call = self._channel.stream_stream(METHOD)()
        await self._ask(CLUSTER)
        clusters = await self._answer()
        await self._ask(ENDPOINTS, [entry.name for entry in clusters.resources])
        await self._ask(LISTENER)
        await self._answer()
        await self._answer()

    async def _ask(self, type_url: str, names: list[str] | None = None) -> None:
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=names or [])
        request.node.id = "client.shop"
        await self._call.write(request.SerializeToString())

    async def _answer(self) -> Any:
        data = await self._call.read()
        self.received += len(data)
        answer = discovery_pb2.DeltaDiscoveryResponse.FromString(data)
        acknowledgement = discovery_pb2.DeltaDiscoveryRequest(type_url=answer.type_url, response_nonce=answer.nonce)
        await self._call.write(acknowledgement.SerializeToString())
        return answer

    async def listen(self) -> None:
        while True:
            data = await self._call.read()
            self.size = len(data)
            self.told.set()
            answer = discovery_pb2.DeltaDiscoveryResponse.FromString(data)
            acknowledgement = discovery_pb2.DeltaDiscoveryRequest(type_url=answer.type_url, response_nonce=answer.nonce)
            await self._call.write(acknowledgement.SerializeToString())


class BareClient:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._call: Any = None
        self.told = asyncio.Event()

    async def connect(self) -> None:
        self._call = self._channel.stream_stream("/bare/Stream")()
        await self._call.write(b"hello")
        await self._call.read()

    async def listen(self) -> None:
        while True:
            await self._call.read()
            self.told.set()
            await self._call.write(b"thanks")


async def _connected(kind: Any, port: int, count: int, files: Files) -> tuple[list[Any], float]:
    slots = asyncio.Semaphore(CONNECTING)
    clients = [kind(_channel(port, files)) for _ in range(count)]

    async def connect(client: Any) -> None:
        async with slots:
            await client.connect()

    started = time.monotonic()
    await asyncio.gather(*(connect(client) for client in clients))
    return clients, time.monotonic() - started


async def _round(server: subprocess.Popen[str], command: str, clients: list[Any]) -> tuple[float, float]:
    """Seconds from the change to the last client, and the server's CPU seconds."""
    for client in clients:
        client.told.clear()
    started, cpu = map(float, await asyncio.to_thread(_command, server, command))
    async with asyncio.timeout(60):
        await asyncio.gather(*(client.told.wait() for client in clients))
    took = time.monotonic() - started
    await asyncio.sleep(0.3)
    return took, float((await asyncio.to_thread(_command, server, "rss"))[1]) - cpu


def _command(server: subprocess.Popen[str], command: str) -> list[str]:
    assert server.stdin
    assert server.stdout
    server.stdin.write(command + "\n")
    server.stdin.flush()
    return server.stdout.readline().split()


@dataclass(frozen=True, slots=True)
class Results:
    """Rounds are (seconds, CPU seconds of the server)."""

    synced: float
    received: int
    ours: tuple[tuple[float, float], ...]
    base: tuple[tuple[float, float], ...]
    rss: int


async def measure(arguments: argparse.Namespace, folder: Path) -> bool:
    authority = ControlPlaneAuthority()
    swap_identity(folder, authority.server().files())
    leaf = authority.leaf(identity("client"))
    files = Files(folder, grpc.ssl_channel_credentials(authority.pem, leaf.key, leaf.certificate))
    cores = sorted(os.sched_getaffinity(0))
    server = subprocess.Popen(  # noqa: ASYNC220 - once, before anything is timed
        ["taskset", "-c", str(cores[0]), sys.executable, "-m", "bench.discovery", "--serve", str(folder),
         "--services", str(arguments.services), "--endpoints", str(arguments.endpoints)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "MALLOC_ARENA_MAX": "2"},  # as the chart sets it
    )  # fmt: skip
    os.sched_setaffinity(0, set(cores[1:]) or set(cores))
    try:
        assert server.stdout
        port, bare_port = map(int, server.stdout.readline().split())
        clients, synced = await _connected(Client, port, arguments.clients, files)
        tasks = [asyncio.create_task(client.listen()) for client in clients]
        await _round(server, "change", clients)
        # Before the baseline's streams, which are held by the same process.
        rss = int(_command(server, "rss")[0])
        bare, _ = await _connected(BareClient, bare_port, arguments.clients, files)
        tasks += [asyncio.create_task(client.listen()) for client in bare]
        ours: list[tuple[float, float]] = []
        base: list[tuple[float, float]] = []
        for _ in range(arguments.rounds):
            ours.append(await _round(server, "change", clients))
            base.append(await _round(server, f"write {clients[0].size}", bare))
        for task in tasks:
            task.cancel()
        return _report(arguments, Results(synced, clients[0].received, tuple(ours), tuple(base), rss))
    finally:
        server.terminate()
        server.wait(10)


def _report(arguments: argparse.Namespace, results: Results) -> bool:
    value, baseline = (statistics.median(took for took, _ in rounds) for rounds in (results.ours, results.base))
    cpu, base_cpu = (statistics.median(used for _, used in rounds) for rounds in (results.ours, results.base))
    fast, small = value <= BUDGET_S, results.rss <= BUDGET_BYTES
    verdicts = {True: "ok", False: "OVER"}
    size = f"{arguments.services} Services of {arguments.endpoints} meshed endpoints"
    print(f"{arguments.clients} clients, {size}, one core")
    print(f"first sync of all clients   {results.synced:8.2f} s   {results.received / 1e3:.0f} kB each")
    for what, ours, base, budget in (
        ("change to last client", value, baseline, f"budget {BUDGET_S * 1e3:.0f} ms  {verdicts[fast]}"),
        ("server CPU for one change", cpu, base_cpu, ""),
    ):
        print(
            f"{what:27} {ours * 1e3:8.0f} ms  baseline {base * 1e3:.0f} ms  ratio {ours / base:.2f}  {budget}".rstrip()
        )
    budget = f"budget {BUDGET_BYTES / 2**20:.0f} MiB  {verdicts[small]}"
    print(f"RSS with all clients        {results.rss / 2**20:8.0f} MiB {budget}")
    return fast and small


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--endpoints", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.serve, arguments.services, arguments.endpoints))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return 0 if asyncio.run(measure(arguments, Path(folder))) else 1


if __name__ == "__main__":
    sys.exit(main())
