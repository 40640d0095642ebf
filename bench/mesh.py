"""What mutual TLS between two pods costs: latency and CPU of the proxies, at a steady 400 HTTP requests a second.

    python -m bench.mesh [--rounds 7] [--seconds 5]

Real Envoys in network namespaces, one Service, a router for kube-proxy. Four paths take turns in every round: `direct`
(no proxy), `plaintext` (our proxies with the same filters, TLS taken out at 15108), `ours` (mutual TLS), and
`reference` (bench/reference/bootstrap.yaml, mutual TLS, same inbound mode). h2load sends at a fixed rate whatever the
answers do, all connections at the same moment, so there are bursts of 16. CPU is what the kernel counted for both
proxies of a path; medians over the rounds are compared.
"""

import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.budget import Line, report
from bench.envoys import APP_PORT, REPOSITORY, App, cpu_s, our_bootstrap, proxy_folder, without_inbound_tls
from bench.options import options
from cluster.host import install
from discovery.kinds import SlicePort
from mesh import names
from tests.discovery.fleet import Fleet, Member
from tests.discovery.objects import endpoint_slice, service
from tests.proxy.namespaces import eventually, http_get

RATE: Final = 400
CONNECTIONS: Final = 16
P99_BUDGET: Final = 1.1
CPU_BUDGET: Final = 1.0
DIRECT, PLAINTEXT, OURS, REFERENCE = "direct", "plaintext", "ours", "reference"
_VIP: Final = {OURS: "10.96.7.10", PLAINTEXT: "10.96.7.11", REFERENCE: "10.96.7.12"}
# Microseconds at the start of a run that are not looked at: its connections open.
_WARM_US: Final = 500_000


@dataclass(frozen=True, slots=True)
class Way:
    """Where requests start, what they dial, and the proxies between."""

    client: Member
    address: str
    proxies: tuple[Member, ...] = ()


@dataclass(frozen=True, slots=True)
class Round:
    """What one run on one way gave; `cpu_us`: of each proxy, in microseconds for each request."""

    p50_ms: float
    p99_ms: float
    cpu_us: tuple[float, ...]


def main() -> int:
    given = options(__doc__, rounds=7, seconds=5)
    install({"h2load": "nghttp2-client"})
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        Path(name).chmod(0o755)
        ways = build(Path(name), stack)
        rounds: dict[str, list[Round]] = {way: [] for way in ways}
        for number in range(given.rounds + 1):
            for name_, way in ways.items():
                found = run(way, Path(name), given.seconds)
                # The first one opens the proxies' connections.
                if number:
                    rounds[name_].append(found)
        prove(ways)
    show(rounds)
    return 0


def build(folder: Path, stack: ExitStack) -> dict[str, Way]:
    """All pods of all ways, configured."""
    fleet = Fleet(folder, stack)
    plain_proxy = proxy_folder(folder / "plain-proxy", our_bootstrap(without_inbound_tls))
    outsider = fleet.member("outsider", "outsider", meshed=False)
    client, server = fleet.member("client-0", "client"), fleet.member("web-0", "web")
    plain_client, plain_server = fleet.member("client-1", "client"), fleet.member("web-1", "web", proxy=plain_proxy)
    reference_server = fleet.member("web-2", "web", proxy=reference_proxy(folder / "reference-server", "127.0.0.1"))
    reference = reference_proxy(folder / "reference-client", reference_server.address)
    reference_client = fleet.member("client-2", "client", proxy=reference)
    for member in (server, plain_server, reference_server):
        stack.callback(App(member, folder).close)
    configure(fleet, (client, plain_client), server, plain_server)
    return {
        DIRECT: Way(outsider, f"{server.address}:{APP_PORT}"),
        PLAINTEXT: Way(plain_client, _VIP[PLAINTEXT], (plain_client, plain_server)),
        OURS: Way(client, _VIP[OURS], (client, server)),
        REFERENCE: Way(reference_client, _VIP[REFERENCE], (reference_client, reference_server)),
    }


def reference_proxy(folder: Path, server: str) -> Path:
    """The folder of a proxy with the reference configuration, whose one Service is the pod at `server`."""
    text = (REPOSITORY / "bench" / "reference" / "bootstrap.yaml").read_text()
    return proxy_folder(folder, text.replace("@VIP@", _VIP[REFERENCE]).replace("@SERVER@", server))


def configure(fleet: Fleet, clients: tuple[Member, Member], server: Member, plain_server: Member) -> None:
    """Discovery knows a meshed pod behind one Service, and behind the other one that takes plaintext at 15108."""
    fleet.announce(server, *clients)
    fleet.announce(plain_server, meshed=False)
    fleet.discovery.put(
        service("web", _VIP[OURS]), endpoint_slice("web", server.address),
        # A Service is configured from its first meshed endpoint on.
        service("plain", _VIP[PLAINTEXT]), endpoint_slice("plain", server.address),
    )  # fmt: skip
    fleet.discovery.start()
    for client in clients:
        fleet.configured(client)
    port = SlicePort(port=names.INBOUND_TLS_PORT)
    fleet.discovery.put(endpoint_slice("plain", plain_server.address, ports=(port,)))

    def plaintext() -> bool:
        http_get(clients[1].network, _VIP[PLAINTEXT], 80, "/")
        return clients[1].outbound("shop/plain:80", tls="") > 0

    eventually(plaintext, within_s=30, what="plaintext through both proxies")


def run(way: Way, folder: Path, seconds: int) -> Round:
    """One run of h2load. Raises RuntimeError unless every request was answered 200."""
    pids = [member.proxy.envoy_pid for member in way.proxies]
    before = [cpu_s(pid) for pid in pids]
    log = folder / "requests"
    log.unlink(missing_ok=True)
    way.client.network.run(
        "h2load", "--h1", f"--clients={CONNECTIONS}", "--threads=1", f"--rps={RATE / CONNECTIONS:g}",
        f"--duration={seconds}", f"--log-file={log}", f"http://{way.address}/",
    )  # fmt: skip
    after = [cpu_s(pid) for pid in pids]
    rows = [tuple(map(int, line.split("\t"))) for line in log.read_text().splitlines()]
    if not rows or any(status != 200 for _, status, _ in rows):
        raise RuntimeError(f"not every request to {way.address} was answered 200")
    first = min(start for start, _, _ in rows)
    took_us = sorted(took for start, _, took in rows if start - first > _WARM_US)
    return Round(
        took_us[len(took_us) // 2] / 1e3,
        took_us[len(took_us) * 99 // 100] / 1e3,
        tuple((b - a) * 1e6 / len(rows) for a, b in zip(before, after, strict=True)),
    )


def prove(ways: dict[str, Way]) -> None:
    """Raises RuntimeError unless each way was what it is called."""
    for name, version in ((OURS, "TLSv1.2"), (REFERENCE, "TLSv1.2"), (PLAINTEXT, "")):
        proxy = ways[name].client.proxy
        if not proxy.metric("envoy_autotls_rq", dir="outbound", tls=version, code="200"):
            raise RuntimeError(f"{name}: no request with TLS version {version!r}")


def show(rounds: dict[str, list[Round]]) -> None:
    """What was measured, and a line for each budget."""
    p99 = {name: statistics.median(each.p99_ms for each in found) for name, found in rounds.items()}
    cpu = {name: [statistics.median(one) for one in zip(*(each.cpu_us for each in found), strict=True)]
           for name, found in rounds.items()}  # fmt: skip
    runs = len(rounds[DIRECT])
    print(f"{RATE} requests/s of 1 kB over {CONNECTIONS} connections, median of {runs} runs of each, interleaved")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for name, found in rounds.items():
        p50 = statistics.median(each.p50_ms for each in found)
        proxies = " + ".join(f"{each:.0f}" for each in cpu[name]) or "-"
        print(f"  {name:<10} p50 {p50:6.2f} ms   p99 {p99[name]:6.2f} ms   proxies' CPU {proxies} us a request")
    total = {name: sum(each) for name, each in cpu.items()}
    plaintext = "both proxies, plaintext"
    report(
        Line(
            "p99 by mutual TLS", p99[OURS], "ms", P99_BUDGET, p99[PLAINTEXT], "both proxies, plaintext", relative=True
        ),
        Line("  beside no proxy at all", p99[OURS], "ms", None, p99[DIRECT], "direct"),
        Line("proxies' CPU per request", total[OURS], "us", CPU_BUDGET, total[REFERENCE], "reference", relative=True),
        Line("  beside plaintext", total[OURS], "us", None, total[PLAINTEXT], plaintext),
    )


if __name__ == "__main__":
    sys.exit(main())
