"""What the loggers of `autotls tap` cost the client's proxy while nobody taps, and while somebody does.

    python -m bench.tap [--rounds 7] [--seconds 5]

Two pairs of pods with real Envoys in network namespaces, each with a discovery of its own: one with our configuration,
one with the same without tap's part of these loggers. They take turns in every round at a steady 400 HTTP requests a
second. CPU is what the kernel counted for the client's proxy; medians over the rounds are compared.
"""

import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from bench.budget import Line, report
from bench.envoys import Bootstrap, our_bootstrap, proxy_folder
from bench.mesh import RATE, run
from bench.options import options
from bench.pair import meshed_pair
from cluster.host import install
from discovery import listeners, loggers
from discovery.entries import NAMESPACE, Selection, Target
from tests.discovery.fleet import Fleet

# "Nothing measurable": within what two equal configurations differ by here.
BUDGET: Final = 1.05
ABSENT, OFF, TAPPED = "absent", "off", "tapped"
_GRPC_LOGGERS: Final = ("envoy.access_loggers.http_grpc", "envoy.access_loggers.tcp_grpc")


def main() -> int:
    given = options(__doc__, rounds=7, seconds=5)
    install({"h2load": "nghttp2-client"})
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        bare = proxy_folder(folder / "bare-proxy", our_bootstrap(without_loggers))
        absent, _ = meshed_pair(folder / ABSENT, stack, proxy=bare, start=start_without_loggers)
        present, fleet = meshed_pair(folder / OFF, stack)
        cpu: dict[str, list[float]] = {ABSENT: [], OFF: [], TAPPED: []}
        for number in range(given.rounds + 1):
            found = {ABSENT: run(absent, folder, given.seconds), OFF: run(present, folder, given.seconds)}
            tap = fleet.discovery.tap(Selection(Target(NAMESPACE, "shop")))
            seen = len(tap.seen())
            found[TAPPED] = run(present, folder, given.seconds)
            if len(tap.seen()) == seen:
                raise RuntimeError("tapped, but nothing was told")
            tap.close()
            # The first one opens the proxies' connections.
            for way, one in found.items() if number else ():
                cpu[way].append(one.cpu_us[0])
    show(cpu)
    return 0


def without_loggers(bootstrap: Bootstrap) -> None:
    """The bootstrap without tap's loggers."""
    for listener in bootstrap["static_resources"]["listeners"]:
        for chain in listener["filter_chains"]:
            for each in chain["filters"]:
                log = each.get("typed_config", {}).get("access_log")
                if log:
                    log[:] = [logger for logger in log if logger["name"] not in _GRPC_LOGGERS]


def start_without_loggers(fleet: Fleet) -> None:
    """Starts discovery; what it has built by then tells of fallbacks alone."""
    transparent: Any = listeners._transparent  # pyright: ignore[reportPrivateUsage]
    entries = loggers.http_entries(), loggers.tcp_entries()
    told = [entry.filter.SerializeToString() for entry in entries]
    transparent.cache_clear()
    try:
        for entry in entries:
            switch, fallbacks = entry.filter.or_filter.filters
            assert switch.HasField("runtime_filter")
            entry.filter.ParseFromString(fallbacks.SerializeToString())
        fleet.discovery.start()
    finally:
        for entry, before in zip(entries, told, strict=True):
            entry.filter.ParseFromString(before)
        transparent.cache_clear()


def show(cpu: dict[str, list[float]]) -> None:
    """What was measured, and a line for the budget."""
    median = {way: statistics.median(found) for way, found in cpu.items()}
    print(f"{RATE} requests/s, client's proxy, median of {len(cpu[OFF])} runs of each, interleaved")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for way, found in cpu.items():
        print(f"  {way:<8} {median[way]:.1f} us a request ({min(found):.1f} to {max(found):.1f})")
    report(
        Line("CPU per request, nobody taps", median[OFF], "us", BUDGET, median[ABSENT], "no tap", relative=True),
        Line("  every request tapped", median[TAPPED], "us", None, median[ABSENT], "no tap"),
    )


if __name__ == "__main__":
    sys.exit(main())
