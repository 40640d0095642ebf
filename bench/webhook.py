"""`python -m bench.webhook`: what one injection costs, next to a baseline of the same run.

Real server, real TLS, HTTP/1.1 kept alive, one worker; only the API server is missing. CPU is the server process's
own (user and system, /proc/PID/stat), so a loaded machine disturbs it little; latencies are wall time and worth
only their ratio. Rounds of the two servers alternate and medians are compared.
"""

import asyncio
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench import budget
from bench.budget import Line
from bench.certificates import write_serving_pair
from bench.loader import Load, run_load, wait_until_open
from bench.options import options
from bench.reviews import reviews
from cluster.ports import reserved

CPU_BUDGET_S = 0.20
P99_BUDGET = 3.0
RSS_BUDGET_MB = 90.0
CONNECTIONS = 8
_TICKS = os.sysconf("SC_CLK_TCK")


class Server(NamedTuple):
    """One measured process."""

    process: "subprocess.Popen[bytes]"
    port: int

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def rss_mb(self) -> float:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError("no VmRSS")


class Round(NamedTuple):
    cpu_s: float
    load: Load


@contextmanager
def started(kind: str, folder: Path) -> Generator[Server]:
    """A running server of `kind`, ended on exit."""
    with reserved() as port, (folder / f"{kind}.log").open("wb") as log:
        command = [sys.executable, "-m", "bench.webhook_server", kind, str(port), str(folder)]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until_open(port, process)
            yield Server(process, port)
        finally:
            process.terminate()
            process.wait(20)


def measure(server: Server, path: str, bodies: list[bytes], requests: int, tls: ssl.SSLContext) -> Round:
    """One round: CPU of the server and latencies as the client sees them."""
    before = server.cpu_s()
    load = asyncio.run(run_load(server.port, path, bodies, requests, tls, connections=CONNECTIONS))
    return Round(server.cpu_s() - before, load)


def main() -> int:
    """Prints the table; 0 also when a budget is missed (budgets never decide a test)."""
    given = options(__doc__, rounds=5, requests=3000)
    bodies = reviews(100)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tls = write_serving_pair(folder)
        with started("webhook", folder) as webhook, started("baseline", folder) as baseline:
            rounds: dict[str, list[Round]] = {"webhook": [], "empty": [], "baseline": []}
            for number in range(given.rounds + 1):
                for key, server, path in (
                    ("webhook", webhook, "/mutate?timeout=5s"),
                    ("empty", webhook, "/empty"),
                    ("baseline", baseline, "/mutate?timeout=5s"),
                ):
                    result = measure(server, path, bodies, given.requests, tls)
                    # The first round warms up caches and branch predictors and is thrown away.
                    if number:
                        rounds[key].append(result)
            report(rounds, given.requests, webhook.rss_mb(), bodies)
    return 0


def report(rounds: dict[str, list[Round]], requests: int, rss_mb: float, bodies: list[bytes]) -> None:
    """What was measured, and a line for each budget."""
    cpu = {key: statistics.median(one.cpu_s for one in found) * 1000 / requests for key, found in rounds.items()}
    p99 = {key: statistics.median(one.load.p99_ms for one in found) for key, found in rounds.items()}
    p50 = {key: statistics.median(one.load.p50_ms for one in found) for key, found in rounds.items()}
    sizes = [len(body) for body in bodies]
    answered = rounds["webhook"][-1].load.response_bytes
    print(f"webhook: {len(bodies)} distinct reviews of {min(sizes)}-{max(sizes)} bytes, answers of {answered} bytes,")
    print(
        f"{len(rounds['webhook'])} rounds of {requests} requests, TLS kept alive, {CONNECTIONS} connections, 1 worker"
    )
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(
        f"p50: injection {p50['webhook']:.2f} ms, empty {p50['empty']:.2f} ms, minimal {p50['baseline']:.2f} ms;",
        end=" ",
    )
    print(f"empty route {cpu['empty']:.3f} s CPU per 1000")
    against = "empty route, same app"
    budget.report(
        Line("CPU per 1000 injections", cpu["webhook"], "s", CPU_BUDGET_S, cpu["baseline"], "minimal FastAPI route"),
        Line("p99 of an injection", p99["webhook"], "ms", P99_BUDGET, p99["empty"], against, relative=True),
        Line("RSS of the webhook", rss_mb, "MB", RSS_BUDGET_MB),
    )


if __name__ == "__main__":
    sys.exit(main())
