"""From objects of the API to what a proxy must know: which pods speak mutual TLS, and what is behind each Service.

Pure: objects in, frozen plans out. Two equal plans give the same resources, so a plan that did not change costs
nothing further on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from discovery.backends import Backend, backends_of
from discovery.kinds import EndpointSlice, Service, ServicePort
from discovery.protocols import NO_PORTS, PortSet, Protocol, protocol_of, undeclared_protocol
from discovery.scope import EVERYBODY, Reach, reach_of
from discovery.unsupported import Unsupported, unsupported
from mesh import names
from mesh.config import MeshConfig
from mesh.pod import ObjectMeta, Pod
from mesh.reasons import Plaintext
from mesh.settings import settings_for
from mesh.spiffe import SpiffeIdError, TrustDomain
from mesh.workload import workload_of


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What matters about one pod. `identity` is the SPIFFE ID of its ServiceAccount; `key` is `namespace/name`.

    `workload`: what operators know it by (mesh.workload).
    `meshed`: it carries our label and our sidecar runs; only then does its 15108 answer. `redirected`: what it dials
    passes its proxy.
    """

    key: str
    uid: str
    workload: str
    addresses: tuple[str, ...]
    service_account: str
    identity: str
    meshed: bool
    redirected: bool
    strict: bool
    ports: tuple[tuple[int, Protocol], ...]
    opaque: PortSet
    skipped: PortSet
    reach: Reach

    @property
    def namespace(self) -> str:
        return self.key.partition("/")[0]


def pod_facts(pod: Pod, namespace: ObjectMeta | None, config: MeshConfig) -> PodFacts | None:
    """The facts of a pod that can be dialled or can dial; None for one that has ended, or has the node's network.

    A pod on its node's network shares its address with others, so the address says nothing about who answers there.
    """
    metadata, spec = pod.metadata, pod.spec
    if pod.finished or spec.host_network:
        return None
    try:
        identity = str(TrustDomain(config.trust_domain).workload(metadata.namespace, spec.service_account))
    except SpiffeIdError:
        # A ServiceAccount whose name is no path segment cannot exist; nothing to pin means not meshed.
        identity = ""
    settings, _ = settings_for(metadata, namespace or ObjectMeta(), config)
    opaque = PortSet.parse(settings.opaque_ports)
    return PodFacts(
        key=f"{metadata.namespace}/{metadata.name}",
        uid=metadata.uid,
        workload=str(workload_of(pod)),
        addresses=_addresses(pod),
        service_account=spec.service_account,
        identity=identity,
        meshed=bool(identity) and _sidecar_runs(pod, config.control_plane_namespace),
        # Left out where PodSecurity would refuse it (webhook.patch).
        redirected=any(each.name == names.INIT_CONTAINER for each in spec.init_containers or ()),
        strict=settings.mode == "strict",
        ports=_container_ports(pod, opaque),
        opaque=opaque,
        skipped=PortSet.parse(settings.skip_inbound_ports) if settings.skip_inbound_ports else NO_PORTS,
        reach=reach_of(metadata, namespace),
    )


def _addresses(pod: Pod) -> tuple[str, ...]:
    several = tuple(entry.ip for entry in pod.status.pod_ips or () if entry.ip)
    return several or ((pod.status.pod_ip,) if pod.status.pod_ip else ())


def _sidecar_runs(pod: Pod, control_plane: str) -> bool:
    # The label alone is a claim that anybody can make; the kubelet's word that our container runs is a fact.
    if pod.metadata.label(names.MESH_LABEL) != control_plane:
        return False
    statuses = pod.status.init_container_statuses or ()
    return any(s.name == names.PROXY_CONTAINER and s.state and s.state.running is not None for s in statuses)


def _container_ports(pod: Pod, opaque: PortSet) -> tuple[tuple[int, Protocol], ...]:
    found: dict[int, Protocol] = {}
    for container in pod.spec.all_containers:
        for port in container.ports or ():
            number = port.container_port
            if (port.protocol or "TCP") == "TCP" and number not in names.RESERVED_PORTS:
                found[number] = Protocol.TCP if number in opaque else undeclared_protocol(port.name, (number,))
    return tuple(sorted(found.items()))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address behind a Service. `identity` is set when it is dialled by mutual TLS, `reason` when it is not.

    `workload` is empty where no pod is known at that address.
    """

    address: str
    port: int
    identity: str = ""
    strict: bool = False
    reason: Plaintext | None = None
    workload: str = ""


@dataclass(frozen=True, slots=True)
class PortPlan:
    """One port of one Service in one address family: a listener, a cluster and its endpoints, all named `name`.

    `owners` is what a reach may name: `namespace/service`, `namespace/` for a pod's own address, and EVERYBODY.
    """

    name: str
    owners: tuple[str, ...]
    address: str
    port: int
    protocol: Protocol
    endpoints: tuple[Endpoint, ...]

    @property
    def identities(self) -> frozenset[str]:
        return frozenset(endpoint.identity for endpoint in self.endpoints if endpoint.identity)


@dataclass(frozen=True, slots=True)
class Target:
    """That a Service sends connections to this port of this address, and what they speak.

    `named`: the Service is headless, so DNS gives out the address itself.
    """

    address: str
    port: int
    protocol: Protocol
    named: bool = False


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """Everything about one Service. `targets` also holds those of headless and unsupported Services."""

    ports: tuple[PortPlan, ...] = ()
    targets: tuple[Target, ...] = ()
    unsupported: Unsupported | None = None


NOTHING: Final = ServicePlan()


def plan_service(
    service: Service,
    slices: Iterable[EndpointSlice],
    pods: Mapping[str, PodFacts],
    config: MeshConfig,
    namespace: ObjectMeta | None = None,
) -> ServicePlan:
    """The plan of `service`; `pods` is by address. Whether it is sent at all (anything meshed?) is decided later."""
    if service.spec.type == "ExternalName":
        return NOTHING
    slices = tuple(slices)
    opaque = _opaque_of(service.metadata, namespace, config)
    reason = unsupported(service)
    headless = not service.spec.virtual_addresses
    ports: list[PortPlan] = []
    targets: set[Target] = set()
    for port in service.spec.ports or ():
        if (port.protocol or "TCP") != "TCP":
            continue
        # Not-ready addresses too: who dials a pod by its address does not ask for readiness.
        backends = backends_of(slices, port.name, all_of_them=True)
        protocol = protocol_of(port, _target_ports(port, backends), opaque)
        targets.update(Target(backend.address, backend.port, protocol, headless) for backend in backends)
        if reason is None:
            ports.extend(_plans(service, port, protocol, slices, pods))
    return ServicePlan(tuple(ports), tuple(sorted(targets, key=str)), reason)


def _plans(
    service: Service,
    port: ServicePort,
    protocol: Protocol,
    slices: Iterable[EndpointSlice],
    pods: Mapping[str, PodFacts],
) -> Iterable[PortPlan]:
    key = f"{service.metadata.namespace}/{service.metadata.name}"
    for position, address in enumerate(service.spec.virtual_addresses):
        # kube-proxy sends an IPv6 ClusterIP to IPv6 endpoints only, so the second family is a cluster of its own.
        version = ip_address(address).version
        backends = backends_of(slices, port.name, families=(f"IPv{version}",))
        endpoints = tuple(_endpoint(backend, pods, service.metadata.namespace) for backend in backends)
        name = f"{key}:{port.port}" + (f"/v{version}" if position else "")
        yield PortPlan(name, (EVERYBODY, key), address, port.port, protocol, endpoints)


def _endpoint(backend: Backend, pods: Mapping[str, PodFacts], namespace: str) -> Endpoint:
    """By address, never by the slice's targetRef: a hand-written slice must not decide whose certificate is due."""
    pod = pods.get(backend.address)
    if pod is None:
        return Endpoint(backend.address, backend.port, reason=Plaintext.NOT_MESHED)
    if not pod.meshed:
        return Endpoint(backend.address, backend.port, reason=Plaintext.NOT_MESHED, workload=pod.workload)
    # A Service of another namespace opens no port of the pod (`World`), so 15108 would refuse what it does not declare.
    closed = pod.namespace != namespace and backend.port not in dict(pod.ports)
    if closed or backend.port in names.RESERVED_PORTS or backend.port in pod.skipped:
        return Endpoint(backend.address, backend.port, reason=Plaintext.SKIPPED_PORT, workload=pod.workload)
    return Endpoint(backend.address, backend.port, pod.identity, pod.strict, workload=pod.workload)


def _target_ports(port: ServicePort, backends: Iterable[Backend]) -> frozenset[int]:
    numbers = {backend.port for backend in backends}
    if isinstance(port.target_port, int) and port.target_port:
        numbers.add(port.target_port)
    return frozenset(numbers)


def _opaque_of(service: ObjectMeta, namespace: ObjectMeta | None, config: MeshConfig) -> PortSet:
    key = f"{names.SETTING_PREFIX}opaque-ports"
    for metadata in (service, namespace):
        text = metadata.annotation(key) if metadata else None
        if text is not None:
            return PortSet.parse(text)
    return PortSet.parse(",".join(config.proxy.opaque_ports))


def plan_pod(pod: PodFacts, targets: Iterable[tuple[str, Target]], *, named: bool = False) -> tuple[PortPlan, ...]:
    """One plan for each address and reachable port of a meshed pod; `targets` are (service key, Target) of it.

    A Service's word about the protocol is worth more than a container port's name. Addresses that no headless Service
    gives out, now or before (`named`), are for those alone that may know them: docs/adr/0023.
    """
    if not pod.meshed:
        return ()
    protocols: dict[tuple[str, int], Protocol] = {
        (address, port): protocol for address in pod.addresses for port, protocol in pod.ports
    }
    owners = {f"{pod.namespace}/", EVERYBODY} if named else {f"{pod.namespace}/"}
    declared: dict[tuple[str, int], set[Protocol]] = {}
    for service, target in targets:
        owners.update({service, EVERYBODY} if target.named else {service})
        declared.setdefault((target.address, target.port), set()).add(target.protocol)
    for place, said in declared.items():
        # Services that contradict each other: bytes, which are right for everything.
        protocols[place] = said.pop() if len(said) == 1 else Protocol.TCP
    return tuple(
        PortPlan(
            name=f"pod/{address}:{port}" if ":" not in address else f"pod/[{address}]:{port}",
            owners=tuple(sorted(owners)),
            address=address,
            port=port,
            protocol=Protocol.TCP if port in pod.opaque else protocol,
            endpoints=(Endpoint(address, port, pod.identity, pod.strict, workload=pod.workload),),
        )
        for (address, port), protocol in sorted(protocols.items())
        if port not in names.RESERVED_PORTS and port not in pod.skipped
    )
