"""What the cluster says about a proof before anything is tried: the pod, the Service, and what discovery makes of both.

The plan is computed with discovery's own functions, so what the proxy holds can be compared with what it should.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from cli.checks.view import View
from cli.errors import CliError
from discovery.kinds import SERVICE_NAME_LABEL, EndpointSlice, Service, ServicePort
from discovery.snapshot import PodFacts, PortPlan, ServicePlan, plan_pod, plan_service, pod_facts
from discovery.unsupported import Unsupported
from kube.kinds import collection_path
from kube.read import list_all
from mesh.pod import Namespace, ObjectMeta, Pod

_NOT_FOUND_HINT: Final = "kubectl -n {namespace} get {what}"


@dataclass(frozen=True, slots=True)
class Goal:
    """`--to SERVICE[.NAMESPACE][:PORT]`; `port` is a number, a name, or empty for a Service's only one."""

    service: str
    namespace: str
    port: str

    @classmethod
    def parse(cls, text: str, default_namespace: str) -> "Goal":
        """A complete DNS name (`web.shop.svc.cluster.local`) will do as well. Raises CliError."""
        name, _, port = text.partition(":")
        service, _, rest = name.partition(".")
        namespace = rest.partition(".")[0]
        if not service or (":" in text and not port) or (rest and not namespace):
            raise CliError(f"--to {text!r} names no Service", hint="SERVICE[.NAMESPACE][:PORT], as in web.shop:80")
        return cls(service, namespace or default_namespace, port)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.service}" + (f":{self.port}" if self.port else "")


@dataclass(frozen=True, slots=True)
class Facts:
    """The pod that dials and what it dials. `plan` is what discovery makes of the address and port that are dialled;
    it has no endpoints where that is nothing."""

    pod: Pod
    client: PodFacts
    service: Service
    plan: PortPlan
    unsupported: Unsupported | None

    @property
    def source(self) -> str:
        """The pod's own address in the family that is dialled. Raises CliError."""
        version = ip_address(self.plan.address).version
        for address in self.client.addresses:
            if ip_address(address).version == version:
                return address
        raise CliError(f"the pod has no IPv{version} address, and the Service no other")

    @property
    def meshed(self) -> tuple[str, ...]:
        """Addresses that should be dialled by TLS."""
        return tuple(each.address for each in self.plan.endpoints if each.identity)

    @property
    def within_reach(self) -> bool:
        return self.client.reach.covers(self.plan.owners)

    @property
    def expected(self) -> bool:
        """Whether discovery gives the proxy a listener for this."""
        return self.unsupported is None and self.within_reach and bool(self.meshed)


async def find_pod(view: View, namespace: str, name: str) -> Pod:
    """Raises CliError when there is none."""
    pod = await view.find(f"/api/v1/namespaces/{namespace}/pods/{name}", Pod)
    if pod is None:
        hint = _NOT_FOUND_HINT.format(namespace=namespace, what="pods")
        raise CliError(f"there is no pod {namespace}/{name}", hint=hint)
    return pod


async def read_facts(view: View, pod: Pod, goal: Goal) -> Facts:
    """Raises CliError when there is nothing to prove, ApiError."""
    service = await view.find(f"/api/v1/namespaces/{goal.namespace}/services/{goal.service}", Service)
    if service is None:
        hint = _NOT_FOUND_HINT.format(namespace=goal.namespace, what="services")
        raise CliError(f"there is no Service {goal.namespace}/{goal.service}", hint=hint)
    port = _port_of(service, goal)
    mine, theirs, slices, pods, config = await asyncio.gather(
        _namespace(view, pod.metadata.namespace),
        _namespace(view, goal.namespace),
        list_all(
            view.api,
            collection_path("discovery.k8s.io/v1", "endpointslices", goal.namespace),
            EndpointSlice,
            label_selector=f"{SERVICE_NAME_LABEL}={goal.service}",
        ),
        list_all(view.api, collection_path("v1", "pods", goal.namespace), Pod),
        view.config(),
    )
    client = pod_facts(pod, mine, config)
    if client is None:
        raise CliError("the pod has ended, or uses its node's network: no proxy dials for it")
    known = [facts for each in pods if (facts := pod_facts(each, theirs, config))]
    by_address = {address: facts for facts in known for address in facts.addresses}
    plan = plan_service(service, slices, by_address, config, theirs)
    chosen = next((each for each in plan.ports if each.port == port.port), None)
    return Facts(pod, client, service, chosen or _unplanned(service, port, plan, by_address), plan.unsupported)


def _unplanned(service: Service, port: ServicePort, plan: ServicePlan, by_address: Mapping[str, PodFacts]) -> PortPlan:
    """What is dialled where the Service has no listener: its ClusterIP where it is left to kube-proxy; of a headless
    one an address behind it, a meshed one if there is any. Raises CliError."""
    key = f"{service.metadata.namespace}/{service.metadata.name}"
    wanted = port.target_port if isinstance(port.target_port, int) else None
    targets = [each for each in plan.targets if wanted in (None, each.port)]
    if not targets:
        hint = f"kubectl -n {service.metadata.namespace} get endpointslices"
        raise CliError(f"nothing is behind Service {key}", hint=hint)
    if service.spec.virtual_addresses:
        address, protocol = service.spec.virtual_addresses[0], targets[0].protocol
        return PortPlan(f"{key}:{port.port}", (key,), address, port.port, protocol, ())
    for target in targets:
        server = by_address.get(target.address)
        for each in plan_pod(server, [(key, target)]) if server else ():
            if (each.address, each.port) == (target.address, target.port):
                return each
    first = targets[0]
    return PortPlan(f"pod/{first.address}:{first.port}", (key,), first.address, first.port, first.protocol, ())


def _port_of(service: Service, goal: Goal) -> ServicePort:
    ports = [each for each in service.spec.ports or () if (each.protocol or "TCP") == "TCP"]
    chosen = [each for each in ports if goal.port in (str(each.port), each.name or "")] if goal.port else ports
    if len(chosen) == 1:
        return chosen[0]
    listed = ", ".join(f"{each.port}" + (f" ({each.name})" if each.name else "") for each in ports) or "none"
    raise CliError(
        f"Service {goal.namespace}/{goal.service} has " + ("no such port" if goal.port else "not exactly one TCP port"),
        hint=f"its TCP ports: {listed}; write --to {goal.service}.{goal.namespace}:PORT",
    )


async def _namespace(view: View, name: str) -> ObjectMeta | None:
    found = await view.find(f"/api/v1/namespaces/{name}", Namespace)
    return found.metadata if found else None
