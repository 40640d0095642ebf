"""What counting and telling costs the client's proxy: its access loggers, against the same proxy without any.

    python -m bench.statistics [--rounds 9] [--seconds 5]

Two pairs of pods with real Envoys in network namespaces, each with a discovery of its own: one with our configuration,
one whose client has no access logger on its HTTP listeners (statistics, tap, fallbacks). They take turns in every
round at a steady 400 HTTP requests a second by mutual TLS. CPU is what the kernel counted for the client's proxy;
medians over the rounds are compared.
"""

import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from bench.budget import Line, report
from bench.mesh import RATE, Way, run
from bench.options import options
from bench.pair import meshed_pair
from cluster.host import install
from discovery import listeners

BUDGET_US: Final = 8.0
SILENT, COUNTING = "silent", "counting"


def main() -> int:
    given = options(__doc__, rounds=9, seconds=5)
    install({"h2load": "nghttp2-client"})
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        ways = {way: pair(folder / way, stack, counting=way == COUNTING) for way in (SILENT, COUNTING)}
        cpu: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(given.rounds + 1):
            # The first round opens the proxies' connections; the order turns, so that neither is always the second.
            for way in sorted(ways, reverse=bool(number % 2)):
                used = run(ways[way], folder, given.seconds).cpu_us[0]
                if number:
                    cpu[way].append(used)
    show(cpu)
    return 0


def pair(folder: Path, stack: ExitStack, *, counting: bool) -> Way:
    """A meshed client and server; without `counting`, no logger is on the client's HTTP listeners."""
    transparent: Any = listeners._transparent  # pyright: ignore[reportPrivateUsage]
    transparent.cache_clear()
    if not counting:
        del transparent().access_log[:]
    way, _ = meshed_pair(folder, stack)
    transparent.cache_clear()
    return way


def show(cpu: dict[str, list[float]]) -> None:
    """What was measured, and a line for the budget."""
    median = {way: statistics.median(found) for way, found in cpu.items()}
    print(f"{RATE} requests/s, client's proxy, median of {len(cpu[COUNTING])} runs of each, interleaved")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for way, found in cpu.items():
        print(f"  {way:<8} {median[way]:.1f} us a request ({min(found):.1f} to {max(found):.1f})")
    added = median[COUNTING] - median[SILENT]
    report(Line("CPU per request added by statistics", added, "us", BUDGET_US, median[SILENT], "the whole request"))


if __name__ == "__main__":
    sys.exit(main())
