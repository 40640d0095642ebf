"""From the addresses of a record to names that operators know, and the reason of plaintext where only the cluster
tells it."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from discovery.accesslog import Record
from discovery.entries import Entry, Place
from discovery.scope import EVERYBODY
from discovery.snapshot import PodFacts, ServicePlan
from mesh import names
from mesh.reasons import Plaintext

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# The clusters of the bootstrap, which stand for no Service.
_NO_SERVICE: Final = ("passthrough", "inbound_app")


class Known(Protocol):
    """What is known about the cluster: discovery.world.World."""

    def pod_at(self, address: str) -> PodFacts | None: ...
    def owners(self, pod: PodFacts) -> Iterable[str]: ...
    def service_at(self, address: str) -> str | None: ...
    def plan(self, service: str) -> ServicePlan | None: ...
    def inbound_ports(self, pod: PodFacts) -> tuple[int, ...]: ...


def entry_of(record: Record, reporter: PodFacts, known: Known) -> Entry:
    """The entry for what the proxy of `reporter` recorded."""
    if record.outbound:
        source, destination = _own(reporter, record.source), _dialled(record, known)
    else:
        source, destination = _place(record.source, known), _own(reporter, record.upstream or record.local)
    return Entry(
        time=(_EPOCH + timedelta(microseconds=record.started_us)).isoformat().replace("+00:00", "Z"),
        direction="outbound" if record.outbound else "inbound",
        protocol=record.protocol,
        reporter=reporter.key,
        source=source,
        destination=destination,
        latency_ms=record.duration_us / 1000,
        received_bytes=record.received_bytes,
        sent_bytes=record.sent_bytes,
        tls=bool(record.tls),
        tls_version=record.tls,
        peer=record.peer,
        reason="" if record.tls else reason_of(record, reporter, known),
        method=record.method,
        authority=record.authority,
        path=record.path,
        status=record.status,
        grpc_status=int(record.grpc) if record.grpc.isascii() and record.grpc.isdigit() else None,
        flags=record.flags,
        failure=record.failure,
    )


def reason_of(record: Record, reporter: PodFacts, known: Known) -> str:
    """Why a plaintext record was plaintext; empty where nothing was dialled."""
    if record.reason or not record.upstream:
        return record.reason
    if not record.outbound:
        client = known.pod_at(host_of(record.source))
        if client is None:
            return Plaintext.EXTERNAL.value
        if not client.meshed:
            return Plaintext.NOT_MESHED.value
        # A meshed client's own proxy knows more than the server can.
        return (Plaintext.TLS_FAILED if client.redirected else Plaintext.NO_REDIRECT).value
    return _passed_through(record, reporter, known).value


def _passed_through(record: Record, reporter: PodFacts, known: Known) -> Plaintext:
    """No listener of discovery's took it."""
    host, port = host_of(record.local), port_of(record.local)
    if service := known.service_at(host):
        found = _behind(known.plan(service), port, known)
        return found or _not_configured(reporter, (EVERYBODY, service))
    pod = known.pod_at(host)
    if pod is None:
        return Plaintext.EXTERNAL
    if not pod.meshed:
        return Plaintext.NOT_MESHED
    if port in names.RESERVED_PORTS or port in pod.skipped:
        return Plaintext.SKIPPED_PORT
    # A port that nobody declares is not reached by TLS.
    declared = port in known.inbound_ports(pod)
    return _not_configured(reporter, known.owners(pod)) if declared else Plaintext.OUT_OF_REACH


def _behind(plan: ServicePlan | None, port: int, known: Known) -> Plaintext | None:
    """Why that port of a Service has no listener; None where it should have one."""
    if plan and plan.unsupported:
        pods = (known.pod_at(target.address) for target in plan.targets)
        return Plaintext.UNSUPPORTED_SERVICE if any(pod and pod.meshed for pod in pods) else Plaintext.NOT_MESHED
    endpoints = [each for way in plan.ports if way.port == port for each in way.endpoints] if plan else []
    if any(each.identity for each in endpoints):
        return None
    skipped = any(each.reason is Plaintext.SKIPPED_PORT for each in endpoints)
    return Plaintext.SKIPPED_PORT if skipped else Plaintext.NOT_MESHED


def _not_configured(reporter: PodFacts, owners: Iterable[str]) -> Plaintext:
    return Plaintext.DISCOVERY_UNAVAILABLE if reporter.reach.covers(owners) else Plaintext.OUT_OF_REACH


def _own(reporter: PodFacts, address: str) -> Place:
    return Place(address, reporter.workload, reporter.key)


def _place(address: str, known: Known) -> Place:
    pod = known.pod_at(host_of(address))
    return Place(address, pod.workload, pod.key) if pod else Place(address)


def _dialled(record: Record, known: Known) -> Place:
    """Where the client wanted to go, and who it was that answered."""
    pod = known.pod_at(host_of(record.upstream)) or known.pod_at(host_of(record.local))
    if record.cluster and record.cluster not in _NO_SERVICE and not record.cluster.startswith("pod/"):
        # A Service's second address family is a cluster of its own (discovery.snapshot).
        service = record.cluster.removesuffix("/v6").removesuffix("/v4")
    else:
        found = known.service_at(host_of(record.local))
        service = f"{found}:{port_of(record.local)}" if found else ""
    return Place(record.local, pod.workload if pod else "", pod.key if pod else "", service)


def host_of(address: str) -> str:
    """`fd00::1` of `[fd00::1]:80`."""
    return address.rpartition(":")[0].strip("[]")


def port_of(address: str) -> int:
    """0 where there is none."""
    text = address.rpartition(":")[2]
    return int(text) if text.isdigit() else 0
