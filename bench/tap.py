"""What the loggers of `autotls tap` cost the client's proxy while nobody taps, and while somebody does.

    python -m bench.tap [--rounds 7] [--seconds 5]

Two pairs of pods with real Envoys in network namespaces, each with a discovery of its own: one with our configuration,
one with the same without these loggers. They take turns in every round at a steady 400 HTTP requests a second. CPU is
what the kernel counted for the client's proxy; medians over the rounds are compared.
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
from discovery import listeners
from discovery.api import grpc_loggers_pb2, tcp_proxy_pb2
from discovery.entries import NAMESPACE, Selection, Target
from discovery.loggers import TAP_LOG
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
                    log[:] = [logger for logger in log if not is_tap(logger["name"], log_name_of(logger))]


def log_name_of(logger: Bootstrap) -> str:
    return logger["typed_config"].get("common_config", {}).get("log_name", "")


def is_tap(logger: str, log_name: str) -> bool:
    """Not the ones that tell of fallbacks."""
    return logger in _GRPC_LOGGERS and log_name == TAP_LOG


def start_without_loggers(fleet: Fleet) -> None:
    """Starts discovery; what it has built by then is without tap's loggers."""
    original: Any = listeners._tcp_chain  # pyright: ignore[reportPrivateUsage]
    transparent: Any = listeners._transparent  # pyright: ignore[reportPrivateUsage]

    def bare_chain(cluster: str) -> Any:
        chain = original(cluster)
        proxy = tcp_proxy_pb2.TcpProxy.FromString(chain.filters[-1].typed_config.value)
        remove_loggers(proxy)
        chain.filters[-1].typed_config.value = proxy.SerializeToString(deterministic=True)
        return chain

    transparent.cache_clear()
    remove_loggers(transparent())
    setattr(listeners, "_tcp_chain", bare_chain)  # noqa: B010
    try:
        fleet.discovery.start()
    finally:
        setattr(listeners, "_tcp_chain", original)  # noqa: B010
        transparent.cache_clear()


def remove_loggers(proxy: Any) -> None:
    def name_of(logger: Any) -> str:
        # Both kinds of gRPC logger have the field at the same place.
        return grpc_loggers_pb2.HttpGrpcAccessLogConfig.FromString(logger.typed_config.value).common_config.log_name

    grpc = [logger for logger in proxy.access_log if logger.name in _GRPC_LOGGERS]
    tap = [logger.name for logger in grpc if is_tap(logger.name, name_of(logger))]
    assert len(tap) == 1, "one logger of tap's for each proxy"
    kept = [logger for logger in proxy.access_log if logger not in grpc or not is_tap(logger.name, name_of(logger))]
    del proxy.access_log[:]
    proxy.access_log.extend(kept)


def show(cpu: dict[str, list[float]]) -> None:
    """What was measured, and a line for the budget."""
    median = {way: statistics.median(found) for way, found in cpu.items()}
    print(f"{RATE} requests/s, client's proxy, median of {len(cpu[OFF])} runs of each, interleaved")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for way, found in cpu.items():
        print(f"  {way:<8} {median[way]:.1f} us a request ({min(found):.1f} to {max(found):.1f})")
    report(
        Line("CPU per request, nobody taps", median[OFF], "us", BUDGET, median[ABSENT], "no loggers", relative=True),
        Line("  every request tapped", median[TAPPED], "us", None, median[ABSENT], "no loggers"),
    )


if __name__ == "__main__":
    sys.exit(main())
