"""What a sidecar holds: idle, with 1,000 meshed Services in scope, and for each Service and pod address more.

    python -m bench.proxy_memory [--services 1000] [--starts 9]

A real sidecar (the image's scripts, bootstrap and Envoy, one worker, as its uid) is configured by a real discovery over
mutual TLS, whose cluster is in memory. Services are spread over namespaces of 50; the sidecar's own is one of them.
Memory is anonymous resident memory: the file pages of the binary are shared by all sidecars of a node.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.budget import Line, report
from bench.envoys import anonymous_bytes
from bench.options import options
from discovery.resources import LISTENER
from discovery.scope import REACH_ANNOTATION, Reach
from discovery.tls import Mode
from tests.discovery.fleet import Fleet, Member
from tests.discovery.live import Object
from tests.discovery.objects import endpoint_slice, pod, service
from tests.proxy.namespaces import eventually

IDLE_MB: Final = 20.0
SCOPE_MB: Final = 150.0
READY_S: Final = 0.4
PER_NAMESPACE: Final = 50
# Seconds after the last listener came: what parsing left is given back, counters are flushed.
_SETTLE_S: Final = 6
HOME: Final = "shop"


def main() -> int:
    given = options(__doc__, services=1000, starts=9)
    idle = held_mb(())
    scope = {pods: held_mb(cluster(given.services, pods)) for pods in (1, 3)}
    small = tuple(cluster(200, 1))
    few, all_ = held_mb(small), held_mb(small, reach="*")
    ready = statistics.median(ready_s(given.starts))
    # Of the small cluster's pods, those of the home namespace are configured in either case.
    services, pods = (few - idle) / (200 + PER_NAMESPACE), (all_ - few) / (200 - PER_NAMESPACE)
    report(
        Line("sidecar, idle", idle, "MB", IDLE_MB),
        Line(f"sidecar, {given.services:,} Services in scope", scope[1], "MB", SCOPE_MB, idle, "idle"),
        Line("  of three pods each", scope[3], "MB", None, idle, "idle"),
        Line("sidecar, time to ready, idle", ready, "s", READY_S),
        Line("  each Service port of one pod", services * 1000, "kB"),
        Line("  each address and port of a pod", pods * 1000, "kB"),
    )
    return 0


def cluster(services: int, pods: int) -> Iterable[Object]:
    """Meshed Services, each of `pods` pods of its own ServiceAccount; PER_NAMESPACE to a namespace, HOME the first."""
    number = 0
    for index in range(services):
        namespace = f"team-{index // PER_NAMESPACE}" if index >= PER_NAMESPACE else HOME
        name, addresses = f"web-{index}", list[str]()
        for replica in range(pods):
            number += 1
            addresses.append(f"10.{20 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}")
            yield pod(f"{name}-{replica}", addresses[-1], namespace=namespace, service_account=name)
        yield service(name, f"10.96.{index // 250}.{index % 250 + 1}", namespace=namespace)
        yield endpoint_slice(name, *addresses, namespace=namespace)


def held_mb(objects: Iterable[Object], *, reach: str = "") -> float:
    """Megabytes of a fresh sidecar that has been sent everything of `objects` within its reach."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        Path(folder).chmod(0o755)
        fleet = Fleet(Path(folder), stack)
        client = fleet.member("client-0", "client")
        annotations = {REACH_ANNOTATION: reach} if reach else None
        fleet.discovery.put(
            *objects, pod(client.name, client.address, service_account="client", annotations=annotations)
        )
        fleet.discovery.start(within_s=300)
        wanted = client.static_listeners + in_scope(fleet, reach)
        eventually(lambda: listeners(client) == wanted, within_s=300, what=f"{wanted} listeners")
        time.sleep(_SETTLE_S)
        return anonymous_bytes(client.proxy.envoy_pid) / 1e6


def in_scope(fleet: Fleet, reach: str) -> int:
    """How many listeners discovery has for a pod of HOME."""
    assert fleet.discovery.state
    scope = Reach.parse(reach, HOME) if reach else Reach(home=HOME)
    return len(list(fleet.discovery.state.view(Mode.OPTIONAL, scope).names(LISTENER)))


def listeners(client: Member) -> int:
    return int(client.proxy.metric("envoy_listener_manager_total_listeners_active"))


def ready_s(starts: int) -> Iterable[float]:
    """Seconds from the start of the sidecar's first process to its readiness, discovery up, no Services."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        Path(folder).chmod(0o755)
        fleet = Fleet(Path(folder), stack)
        fleet.discovery.start()
        for number in range(starts):
            member = fleet.member(f"client-{number}", "client", start=False)
            fleet.announce(member)
            note = member.proxy.run_folder / "started"
            command = ("sh", "-c", f'date +%s%N > /run/autotls/{note.name}; exec "$@"', "sh")
            member.proxy.start(until_ready=False, before=command)
            eventually(lambda m=member: m.proxy.status("/ready")[0] == 200, what="ready")
            yield (time.time_ns() - int(note.read_text())) / 1e9


if __name__ == "__main__":
    sys.exit(main())
