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

from bench.budget import Line, report
from bench.options import options
from discovery.ads import METHOD
from discovery.api import discovery_pb2
from discovery.resources import CLUSTER, ENDPOINTS, LISTENER
from tests.discovery.certificates import SERVER_NAME, ControlPlaneAuthority
from tests.discovery.objects import identity
from tests.proxy.certificates import swap_identity

BUDGET_MS: Final = 500
BUDGET_MIB: Final = 220
CONNECTING: Final = 32


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
        held: dict[str, set[str]] = {CLUSTER: set(), ENDPOINTS: set(), LISTENER: set()}
        await self._ask(CLUSTER)
        # All clusters are sent before the first endpoints.
        while not held[CLUSTER] or held[ENDPOINTS] != held[CLUSTER]:
            if fresh := await self._answer(held, CLUSTER):
                await self._ask(ENDPOINTS, fresh)
        await self._ask(LISTENER)
        while not held[LISTENER] >= held[CLUSTER]:
            await self._answer(held, LISTENER)

    async def _ask(self, type_url: str, names: list[str] | None = None) -> None:
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=names or [])
        request.node.id = "client.shop"
        await self._call.write(request.SerializeToString())

    async def _answer(self, held: dict[str, set[str]], wanted: str) -> list[str]:
        """Notes what came in `held`; the names, if they are of the type that is waited for."""
        data = await self._call.read()
        self.received += len(data)
        answer = discovery_pb2.DeltaDiscoveryResponse.FromString(data)
        acknowledgement = discovery_pb2.DeltaDiscoveryRequest(type_url=answer.type_url, response_nonce=answer.nonce)
        await self._call.write(acknowledgement.SerializeToString())
        fresh = [entry.name for entry in answer.resources]
        held[answer.type_url].update(fresh)
        return fresh if answer.type_url == wanted else []

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


async def measure(given: argparse.Namespace, folder: Path) -> None:
    authority = ControlPlaneAuthority()
    swap_identity(folder, authority.server().files())
    leaf = authority.leaf(identity("client"))
    files = Files(folder, grpc.ssl_channel_credentials(authority.pem, leaf.key, leaf.certificate))
    cores = sorted(os.sched_getaffinity(0))
    server = subprocess.Popen(  # noqa: ASYNC220 - once, before anything is timed
        ["taskset", "-c", str(cores[0]), sys.executable, "-m", "bench.discovery_server", str(folder),
         str(given.services), str(given.endpoints)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "MALLOC_ARENA_MAX": "2"},  # as the chart sets it
    )  # fmt: skip
    os.sched_setaffinity(0, set(cores[1:]) or set(cores))
    try:
        assert server.stdout
        port, bare_port = map(int, server.stdout.readline().split())
        clients, synced = await _connected(Client, port, given.clients, files)
        tasks = [asyncio.create_task(client.listen()) for client in clients]
        await _round(server, "change", clients)
        # Before the baseline's streams, which are held by the same process.
        rss = int(_command(server, "rss")[0])
        bare, _ = await _connected(BareClient, bare_port, given.clients, files)
        tasks += [asyncio.create_task(client.listen()) for client in bare]
        ours: list[tuple[float, float]] = []
        base: list[tuple[float, float]] = []
        for _ in range(given.rounds):
            ours.append(await _round(server, "change", clients))
            base.append(await _round(server, f"write {clients[0].size}", bare))
        for task in tasks:
            task.cancel()
        _report(given, Results(synced, clients[0].received, tuple(ours), tuple(base), rss))
    finally:
        server.terminate()
        server.wait(10)


def _report(given: argparse.Namespace, results: Results) -> None:
    value, baseline = (statistics.median(took for took, _ in rounds) * 1e3 for rounds in (results.ours, results.base))
    cpu, base_cpu = (statistics.median(used for _, used in rounds) * 1e3 for rounds in (results.ours, results.base))
    size = f"{given.services} Services of {given.endpoints} meshed endpoints"
    print(f"{given.clients} clients, {size}, one core; load average {os.getloadavg()[0]:.1f}")
    print(f"first sync of all clients {results.synced:.2f} s, {results.received / 1e3:.0f} kB each")
    last = f"one endpoint change to the last of {given.clients:,} proxies"
    report(
        Line(last, value, "ms", BUDGET_MS, baseline, "bare gRPC writes"),
        Line("  discovery's CPU for it", cpu, "ms", None, base_cpu, "bare gRPC writes"),
        Line("discovery, RSS with all of them", results.rss / 2**20, "MiB", BUDGET_MIB),
    )


def main() -> int:
    given = options(__doc__, clients=1000, services=100, endpoints=3, rounds=7)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(given, Path(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
