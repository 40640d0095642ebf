"""Whom a label names: `shop/deployment/web`, `10.0.0.7:5432`, an address, an identity. Pure."""

from dataclasses import dataclass

from mesh import series
from mesh.reasons import Plaintext
from mesh.workload import Workload
from telemetry.workloads import Inventory, PodFacts

# What `svc` starts with when an address was dialled and no Service.
_POD = "pod/"


@dataclass(frozen=True, slots=True)
class Party:
    """One end of a flow: a workload, or only a name where there is none (`10.0.0.1`, `node`, `shop/service/web`)."""

    name: str
    namespace: str = ""
    workload: Workload | None = None
    pod: PodFacts | None = None

    @classmethod
    def of_pod(cls, pod: PodFacts) -> "Party":
        return cls(str(pod.workload), pod.namespace, pod.workload, pod)

    @classmethod
    def of_workload(cls, workload: Workload) -> "Party":
        return cls(str(workload), workload.namespace, workload)


NODE = Party("node")
UNKNOWN = Party("unknown")


def of_destination(dst: str, svc: str, cluster: Inventory) -> Party:
    """From `dst`: what discovery wrote, or the address and port that was dialled past it; without one from `svc`."""
    parts = dst.split("/")
    if len(parts) == 3:
        return Party.of_workload(Workload(*parts))
    address, port = _split_port(dst if dst else svc.removeprefix(_POD))
    service = cluster.by_virtual_address.get((address, port))
    if service is not None:
        if service.workload:
            return Party.of_workload(service.workload)
        return Party(_service_name(service.key), service.namespace)
    if not dst and not svc.startswith(_POD):
        name = service_of(dst, svc, cluster)
        workload = next((each.workload for each in cluster.services if each.key == name), None)
        if workload is not None:
            return Party.of_workload(workload)
        return Party(_service_name(name), name.partition("/")[0]) if name else UNKNOWN
    return _of_address(address, cluster) or (Party(dst) if address else UNKNOWN)


def service_of(dst: str, svc: str, cluster: Inventory) -> str:
    """`namespace/name` of the Service that was dialled; empty for none."""
    if svc == series.PASSTHROUGH:
        service = cluster.by_virtual_address.get(_split_port(dst))
        return service.key if service else ""
    # `shop/web:80`, or `shop/web:80/v6`.
    return "" if svc.startswith(_POD) else svc.partition(":")[0]


def of_source(address: str, cluster: Inventory) -> Party:
    """From `src`: who opened a connection that the server's proxy saw."""
    if not address:
        return UNKNOWN
    return _of_address(address, cluster) or Party(address)


def of_identity(spiffe_id: str, cluster: Inventory) -> Party:
    """From a verified SPIFFE ID: the one workload that runs as that ServiceAccount, else the ServiceAccount."""
    parts = spiffe_id.split("/")
    if len(parts) != 7 or (parts[3], parts[5]) != ("ns", "sa"):
        return Party(spiffe_id) if spiffe_id else UNKNOWN
    namespace, account = parts[4], parts[6]
    found = cluster.by_account.get((namespace, account), ())
    if len(found) == 1:
        return Party.of_workload(next(iter(found)))
    return Party(f"{namespace}/serviceaccount/{account}", namespace)


def is_address(dst: str) -> bool:
    """Whether a connection passed through to that address and port."""
    return "/" not in dst and bool(address_of(dst))


def address_of(text: str) -> str:
    """`10.0.0.7` of `10.0.0.7:80`, `fd00::7` of `[fd00::7]:80`; empty for what is no address and port."""
    return _split_port(text)[0]


def passed_through(text: str, cluster: Inventory) -> Plaintext:
    """Why no listener of discovery's took a connection to that address and port, as far as the cluster tells."""
    address, port = _split_port(text)
    service = cluster.by_virtual_address.get((address, port))
    if service is not None:
        if not service.meshed:
            return Plaintext.NOT_MESHED
        if service.unsupported:
            return Plaintext.UNSUPPORTED_SERVICE
        return Plaintext.SKIPPED_PORT if port in service.skipped else Plaintext.OUT_OF_REACH
    pod = cluster.by_address.get(address)
    if pod is not None:
        if not pod.meshed:
            return Plaintext.NOT_MESHED
        return Plaintext.SKIPPED_PORT if pod.leaves_alone(port) else Plaintext.OUT_OF_REACH
    return Plaintext.NOT_MESHED if address in cluster.nodes else Plaintext.EXTERNAL


def _of_address(address: str, cluster: Inventory) -> Party | None:
    pod = cluster.by_address.get(address)
    if pod is not None:
        return Party.of_pod(pod)
    return NODE if address in cluster.nodes else None


def _service_name(key: str) -> str:
    return key.replace("/", "/service/", 1)


def _split_port(text: str) -> tuple[str, int]:
    """`10.0.0.7:80` and `[fd00::7]:80`; no address where it is neither."""
    address, _, port = text.rpartition(":")
    return (address.strip("[]"), int(port)) if port.isascii() and port.isdigit() else ("", 0)
