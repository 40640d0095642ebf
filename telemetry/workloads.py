"""Who is behind an address, a name or a pod: the cluster as the tables know it. Pure."""

import ipaddress
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from discovery.kinds import Service, ServicePort
from discovery.protocols import NO_PORTS, PortSet
from discovery.unsupported import unsupported
from mesh import names
from mesh.workload import Workload, workload_of
from telemetry.kinds import SeenNode, SeenPod

OBSERVED: Final = "observed"


@dataclass(frozen=True, slots=True)
class PodFacts:
    """A pod that runs or will; `owners` are all workloads that it belongs to, itself first and the topmost last."""

    namespace: str
    name: str
    uid: str
    owners: tuple[Workload, ...]
    addresses: tuple[str, ...]
    labels: Mapping[str, str]
    meshed: bool  # our label and our sidecar, and that runs (design: what meshed means)
    observed: bool  # its proxy counts the plaintext that it receives, but for skipped ports
    sees_all: bool  # the same, and no port is skipped
    redirected: bool  # what it dials passes its proxy
    skipped: PortSet  # its own ports that its proxy leaves alone
    service_account: str
    identity: str  # the SPIFFE ID that it was given; empty without a sidecar
    probed_ports: frozenset[int]

    @property
    def workload(self) -> Workload:
        return self.owners[-1]

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    def leaves_alone(self, port: int) -> bool:
        """Whether that port of it is never mutual TLS: it was asked to skip it, or it is one of ours."""
        return port in self.skipped or port in names.RESERVED_PORTS


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """A Service; `pods` are the keys of those that its selector takes."""

    namespace: str
    name: str
    pods: frozenset[str]
    workloads: frozenset[Workload]  # theirs
    meshed: bool  # one of them is
    unsupported: bool = False  # it uses what proxies cannot do, so they leave it to kube-proxy
    skipped: frozenset[int] = frozenset()  # its ports that lead to nothing but what meshed pods leave alone

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def workload(self) -> Workload | None:
        """The one workload that it leads to; None where there are several or none."""
        return next(iter(self.workloads)) if len(self.workloads) == 1 else None


@dataclass(frozen=True, slots=True)
class Inventory:
    """The cluster at one moment."""

    pods: tuple[PodFacts, ...]
    services: tuple[ServiceFacts, ...]
    by_address: Mapping[str, PodFacts]
    by_virtual_address: Mapping[tuple[str, int], ServiceFacts]
    by_workload: Mapping[str, tuple[PodFacts, ...]]  # every owner as text (`shop/deployment/web`) -> its pods
    by_account: Mapping[tuple[str, str], frozenset[Workload]]  # namespace and ServiceAccount -> what runs as it
    nodes: frozenset[str]  # addresses from which the kubelet, and whoever is masqueraded, connects


def inventory(pods: Iterable[SeenPod], services: Iterable[Service] = (), nodes: Iterable[SeenNode] = ()) -> Inventory:
    """From what the API server lists; finished pods and pods that are going are left out."""
    alive = [pod for pod in pods if not pod.finished and not pod.metadata.deletion_timestamp]
    facts = tuple(_facts(pod) for pod in alive)
    by_address: dict[str, PodFacts] = {}
    by_workload: dict[str, list[PodFacts]] = defaultdict(list)
    by_account: dict[tuple[str, str], set[Workload]] = defaultdict(set)
    by_namespace: dict[str, list[tuple[SeenPod, PodFacts]]] = defaultdict(list)
    for pod, known in zip(alive, facts, strict=True):
        by_namespace[known.namespace].append((pod, known))
        for owner in known.owners:
            by_workload[str(owner)].append(known)
        by_account[known.namespace, known.service_account].add(known.workload)
        if not pod.spec.host_network:  # else its address is the node's, and anybody's
            by_address |= dict.fromkeys(known.addresses, known)
    by_virtual: dict[tuple[str, int], ServiceFacts] = {}
    listed: list[ServiceFacts] = []
    nodes = tuple(nodes)
    for service in services:
        known_service = _service_facts(service, by_namespace[service.metadata.namespace])
        listed.append(known_service)
        for address in service.spec.virtual_addresses:
            by_virtual |= {(address, port.port): known_service for port in service.spec.ports or ()}
    return Inventory(
        pods=facts,
        services=tuple(listed),
        by_address=by_address,
        by_virtual_address=by_virtual,
        by_workload={key: tuple(value) for key, value in by_workload.items()},
        by_account={key: frozenset(value) for key, value in by_account.items()},
        nodes=frozenset((*(address for node in nodes for address in _node_addresses(node)), *_bridges(nodes, facts))),
    )


def _facts(pod: SeenPod) -> PodFacts:
    statuses = {each.name: each for each in pod.status.init_container_statuses or ()}
    status = statuses.get(names.PROXY_CONTAINER)
    runs = status is not None and status.state is not None and status.state.running is not None
    proxy = next((each for each in pod.spec.init_containers or () if each.name == names.PROXY_CONTAINER), None)
    observed = proxy is not None and proxy.variable("AUTOTLS_INBOUND") == OBSERVED
    skipped = proxy.variable("AUTOTLS_SKIP_INBOUND_PORTS") if proxy else ""
    return PodFacts(
        namespace=pod.metadata.namespace,
        name=pod.metadata.name,
        uid=pod.metadata.uid,
        owners=_owners(pod),
        addresses=tuple(each.ip for each in pod.status.pod_ips or () if each.ip)
        or ((pod.status.pod_ip,) if pod.status.pod_ip else ()),
        labels=pod.metadata.labels or {},
        meshed=proxy is not None and runs and pod.metadata.label(names.MESH_LABEL) is not None,
        observed=observed,
        sees_all=observed and not skipped,
        redirected=proxy is not None and proxy.variable("AUTOTLS_REDIRECT") != "off",
        skipped=PortSet.parse(skipped) if skipped else NO_PORTS,
        service_account=pod.spec.service_account,
        identity=pod.metadata.annotation(names.IDENTITY_ANNOTATION) or "",
        probed_ports=frozenset(port for each in pod.spec.containers for port in each.probed_ports),
    )


def _owners(pod: SeenPod) -> tuple[Workload, ...]:
    own = Workload(pod.metadata.namespace, "pod", pod.metadata.name)
    controller = next((ref for ref in pod.metadata.owner_references or () if ref.controller), None)
    found = [own]
    if controller is not None:
        found.append(Workload(pod.metadata.namespace, controller.kind.lower(), controller.name))
    top = workload_of(pod)
    return tuple(dict.fromkeys((*found, top)))


def _service_facts(service: Service, pods: Iterable[tuple[SeenPod, PodFacts]]) -> ServiceFacts:
    """`pods` are those of its namespace."""
    selector = service.spec.selector or {}
    chosen = [
        (pod, facts)
        for pod, facts in pods
        if selector and all(facts.labels.get(key) == value for key, value in selector.items())
    ]
    meshed = [(pod, facts) for pod, facts in chosen if facts.meshed]
    ports = service.spec.ports or () if meshed else ()
    return ServiceFacts(
        service.metadata.namespace,
        service.metadata.name,
        frozenset(facts.key for _, facts in chosen),
        frozenset(facts.workload for _, facts in chosen),
        bool(meshed),
        unsupported(service) is not None,
        frozenset(port.port for port in ports if all(facts.leaves_alone(_target(port, pod)) for pod, facts in meshed)),
    )


def _target(port: ServicePort, pod: SeenPod) -> int:
    """The pod's port behind that of a Service; 0 for a name that no container's port has."""
    if not isinstance(port.target_port, str):
        return port.target_port or port.port
    declared = (each for container in pod.spec.containers for each in container.ports or ())
    return next((each.container_port for each in declared if each.name == port.target_port), 0)


def _node_addresses(node: SeenNode) -> Iterable[str]:
    """The node's own, and the first of its pods' ranges: a bridge CNI gives that one to the node."""
    for address in node.status.addresses or ():
        yield address.address
    for text in node.spec.pod_cidrs or ():
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            continue
        yield str(network.network_address + 1)


def _bridges(nodes: Collection[SeenNode], pods: Iterable[PodFacts]) -> Iterable[str]:
    """Where nodes do not say their pods' ranges: the first address of the /24 or /64 that a pod is in.

    Ranges that the CNI hands out by itself (host-local, say) are in no object; those are the usual sizes of a node's.
    """
    if not nodes or any(node.spec.pod_cidrs for node in nodes):
        return
    for pod in pods:
        for address in pod.addresses:
            try:
                network = ipaddress.ip_network(f"{address}/{64 if ':' in address else 24}", strict=False)
            except ValueError:
                continue
            yield str(network.network_address + 1)
