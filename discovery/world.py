"""The cluster as discovery knows it, indexed so that one change touches only what depends on it.

Objects go in (`set_*`), which costs next to nothing; `step` works off what they made stale, a bounded number at a
time, so that no caller ever holds the event loop for a whole cluster.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from discovery.inbound import reachable_ports
from discovery.kinds import EndpointSlice, Service
from discovery.scope import EVERYBODY
from discovery.snapshot import NOTHING, PodFacts, PortPlan, ServicePlan, Target, plan_pod, plan_service, pod_facts
from discovery.unsupported import Unsupported
from mesh.config import MeshConfig
from mesh.pod import Namespace, ObjectMeta, Pod

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Planned:
    """Everything that is now to be configured for one owner (`service/<key>` or `pod/<key>`)."""

    owner: str
    ports: tuple[PortPlan, ...]


class World:
    """Not thread-safe; one per process."""

    def __init__(self, config: MeshConfig) -> None:
        self._config = config
        self._pods: dict[str, Pod] = {}
        self._services: dict[str, Service] = {}
        self._slices: defaultdict[str, dict[str, EndpointSlice]] = defaultdict(dict)
        self._slice_owner: dict[str, str] = {}
        self._namespaces: dict[str, ObjectMeta] = {}
        self._facts: dict[str, PodFacts] = {}
        self._by_address: dict[str, PodFacts] = {}
        self._plans: dict[str, ServicePlan] = {}
        self._pod_plans: dict[str, tuple[PortPlan, ...]] = {}
        # ClusterIP → Service.
        self._virtual: dict[str, str] = {}
        # Address → Service → what it sends there.
        self._targets: defaultdict[str, dict[str, set[Target]]] = defaultdict(dict)
        # Dictionaries without values: sets that keep their order, so that the oldest change goes first.
        self._stale_pods: dict[str, None] = {}
        self._stale_services: dict[str, None] = {}
        self._stale_pod_plans: dict[str, None] = {}
        self.changed_facts: dict[str, None] = {}

    # ---- what the reflectors say ----

    def set_pod(self, key: str, pod: Pod | None) -> None:
        _put(self._pods, key, pod)
        self._stale_pods[key] = None

    def set_service(self, key: str, service: Service | None) -> None:
        before = self._services.get(key)
        for address in before.spec.virtual_addresses if before else ():
            if self._virtual.get(address) == key:
                del self._virtual[address]
        self._virtual.update((address, key) for address in (service.spec.virtual_addresses if service else ()))
        _put(self._services, key, service)
        self._stale_services[key] = None

    def set_slice(self, key: str, piece: EndpointSlice | None) -> None:
        before = self._slice_owner.pop(key, None)
        if before:
            self._slices[before].pop(key, None)
            if not self._slices[before]:
                del self._slices[before]
            self._stale_services[before] = None
        owner = piece.service_key if piece else None
        if piece and owner:
            self._slices[owner][key] = piece
            self._slice_owner[key] = owner
            self._stale_services[owner] = None

    def set_namespace(self, name: str, namespace: Namespace | None) -> None:
        before = self._namespaces.get(name)
        after = namespace.metadata if namespace else None
        _put(self._namespaces, name, after)
        if before and after and (before.labels, before.annotations) == (after.labels, after.annotations):
            return
        prefix = f"{name}/"
        self._stale_pods.update((key, None) for key in self._pods if key.startswith(prefix))
        self._stale_services.update((key, None) for key in self._services if key.startswith(prefix))

    # ---- what is asked ----

    def pod_at(self, address: str) -> PodFacts | None:
        return self._by_address.get(address)

    def pod(self, key: str) -> PodFacts | None:
        return self._facts.get(key)

    def service_at(self, address: str) -> str | None:
        """`namespace/name` of the Service with that ClusterIP."""
        return self._virtual.get(address)

    def plan(self, service: str) -> ServicePlan | None:
        return self._plans.get(service)

    def services_of(self, pod: PodFacts) -> frozenset[str]:
        """The Services of its namespace that send to `pod`."""
        return frozenset(service for service, _ in self._targets_of(pod))

    def owners(self, pod: PodFacts) -> frozenset[str]:
        """What a reach may name to be sent the addresses of `pod` (discovery.scope)."""
        return frozenset(owner for plan in self._pod_plans.get(pod.key, ()) for owner in plan.owners)

    def inbound_ports(self, pod: PodFacts) -> tuple[int, ...]:
        """The ports of `pod` that its peers may reach."""
        return reachable_ports(pod, (target for _, target in self._targets_of(pod)))

    def unsupported(self) -> Iterator[tuple[str, Unsupported]]:
        """(Service, reason) of those left to kube-proxy."""
        for key, plan in self._plans.items():
            if plan.unsupported:
                yield key, plan.unsupported

    @property
    def stale(self) -> int:
        """How much `step` still has to do."""
        return len(self._stale_pods) + len(self._stale_services) + len(self._stale_pod_plans)

    def counts(self) -> dict[str, int]:
        return {
            "pods": len(self._facts),
            "meshed_pods": sum(facts.meshed for facts in self._facts.values()),
            "services": len(self._services),
        }

    # ---- the work ----

    def step(self, limit: int) -> list[Planned]:
        """Works off at most `limit` stale objects: pods, then the Services that depend on them, then pods' addresses.

        `changed_facts` collects the keys of pods whose own view may have changed; the caller empties it.
        """
        found: list[Planned] = []
        for _ in range(limit):
            if self._stale_pods:
                self._pod(_pop(self._stale_pods))
            elif self._stale_services:
                found.extend(self._service(_pop(self._stale_services)))
            elif self._stale_pod_plans:
                found.extend(self._pod_plan(_pop(self._stale_pod_plans)))
            else:
                break
        return found

    def _pod(self, key: str) -> None:
        pod = self._pods.get(key)
        before = self._facts.get(key)
        after = pod_facts(pod, self._namespaces.get(pod.metadata.namespace), self._config) if pod else None
        if before == after:
            return
        _put(self._facts, key, after)
        for address in before.addresses if before else ():
            # The address may be another pod's already.
            if (known := self._by_address.get(address)) and known.key == key:
                del self._by_address[address]
        for address in after.addresses if after else ():
            self._by_address[address] = after  # pyright: ignore[reportArgumentType] - not None: it has addresses
        touched = {*(before.addresses if before else ()), *(after.addresses if after else ())}
        for address in touched:
            self._stale_services.update((service, None) for service in self._targets.get(address, ()))
        self._stale_pod_plans[key] = None
        self.changed_facts[key] = None

    def _service(self, key: str) -> Iterator[Planned]:
        service = self._services.get(key)
        before = self._plans.get(key, NOTHING)
        after = NOTHING
        if service:
            slices = self._slices.get(key, {}).values()
            namespace = self._namespaces.get(service.metadata.namespace)
            after = plan_service(service, slices, self._by_address, self._config, namespace)
        _put(self._plans, key, after if service else None)
        if before.targets != after.targets:
            self._retarget(key, before.targets, after.targets)
        if before.ports != after.ports:
            yield Planned(f"service/{key}", after.ports)

    def _retarget(self, service: str, before: tuple[Target, ...], after: tuple[Target, ...]) -> None:
        for address in {target.address for target in before}:
            here = self._targets[address]
            here.pop(service, None)
            if not here:
                del self._targets[address]
        for target in after:
            self._targets[target.address].setdefault(service, set()).add(target)
        for address in {target.address for target in set(before) ^ set(after)}:
            if pod := self._by_address.get(address):
                self._stale_pod_plans[pod.key] = None
                self.changed_facts[pod.key] = None

    def _pod_plan(self, key: str) -> Iterator[Planned]:
        pod = self._facts.get(key)
        before = self._pod_plans.get(key, ())
        # An address that moves from one slice to another is in none for a moment; its listener must not go and come.
        named = any(EVERYBODY in plan.owners for plan in before)
        after = plan_pod(pod, self._targets_of(pod), named=named) if pod else ()
        if before == after:
            return
        _put(self._pod_plans, key, after or None)
        yield Planned(f"pod/{key}", after)

    def _targets_of(self, pod: PodFacts) -> Iterator[tuple[str, Target]]:
        """Those of Services in the pod's own namespace, which alone may select it.

        Whoever may write EndpointSlices elsewhere can name any address, and would otherwise open ports of other
        namespaces' pods to the mesh, or break connections to them by saying what they speak.
        """
        prefix = f"{pod.namespace}/"
        for address in pod.addresses:
            for service, targets in self._targets.get(address, {}).items():
                if not service.startswith(prefix):
                    continue
                for target in targets:
                    yield service, target


def _put(mapping: dict[str, V], key: str, value: V | None) -> None:
    if value is None:
        mapping.pop(key, None)
    else:
        mapping[key] = value


def _pop(keys: dict[str, None]) -> str:
    key = next(iter(keys))
    del keys[key]
    return key
