"""Projections of the Kubernetes objects that decisions are made from.

They name only what is read, accept every unknown field, and are never written back: a patch goes by path, so
nothing that was not parsed here can be lost. Source: k8s.io/api/core/v1 types.go.
"""

from collections.abc import Mapping

import msgspec


class Wire(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A JSON object of the Kubernetes API; null is read as absent by the fields that allow it."""


class OwnerReference(Wire, frozen=True):
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class ObjectMeta(Wire, frozen=True):
    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None
    owner_references: tuple[OwnerReference, ...] | None = None

    def label(self, key: str) -> str | None:
        return self.labels.get(key) if self.labels else None

    def annotation(self, key: str) -> str | None:
        return self.annotations.get(key) if self.annotations else None


class Namespace(Wire, frozen=True):
    metadata: ObjectMeta


class ContainerPort(Wire, frozen=True):
    container_port: int
    name: str | None = None
    protocol: str | None = None


class Resources(Wire, frozen=True):
    """Quantities as the API writes them: text, or a bare number in what users send."""

    requests: Mapping[str, str | int | float] | None = None
    limits: Mapping[str, str | int | float] | None = None


class SecurityContext(Wire, frozen=True):
    """Of a pod or of a container: the fields that both have, or that only one has."""

    run_as_user: int | None = None
    run_as_non_root: bool | None = None


class Container(Wire, frozen=True):
    name: str = ""
    image: str = ""
    ports: tuple[ContainerPort, ...] | None = None
    resources: Resources | None = None
    security_context: SecurityContext | None = None
    restart_policy: str | None = None


class Named(Wire, frozen=True):
    name: str = ""


class PodSpec(Wire, frozen=True):
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] | None = None
    volumes: tuple[Named, ...] | None = None
    host_network: bool | None = None
    service_account_name: str | None = None
    node_name: str | None = None
    node_selector: Mapping[str, str] | None = None
    os: Named | None = None
    resources: Resources | None = None
    security_context: SecurityContext | None = None

    @property
    def all_containers(self) -> tuple[Container, ...]:
        """Init containers, then containers, in the order in which they start."""
        return (self.init_containers or ()) + self.containers

    @property
    def service_account(self) -> str:
        """The ServiceAccount the pod runs as; the API server fills in `default`, a manifest may leave it out."""
        return self.service_account_name or "default"


class StateDetail(Wire, frozen=True):
    """Why a container waits or has ended (`ImagePullBackOff`); a running one says nothing here.

    Not `msgspec.Raw | None`: msgspec 0.22 takes only null for that, and the whole pod would not decode.
    """

    reason: str | None = None
    message: str | None = None


class ContainerState(Wire, frozen=True):
    """Which of the three states a container is in."""

    running: StateDetail | None = None
    waiting: StateDetail | None = None
    terminated: StateDetail | None = None


class ContainerStatus(Wire, frozen=True):
    name: str = ""
    ready: bool = False
    restart_count: int = 0
    state: ContainerState | None = None


class PodIP(Wire, frozen=True):
    ip: str = ""


class PodStatus(Wire, frozen=True):
    phase: str = ""
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: tuple[PodIP, ...] | None = msgspec.field(name="podIPs", default=None)
    container_statuses: tuple[ContainerStatus, ...] | None = None
    init_container_statuses: tuple[ContainerStatus, ...] | None = None


class Pod(Wire, frozen=True):
    metadata: ObjectMeta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def finished(self) -> bool:
        """True when the pod has ended for good and its identity is no longer in use."""
        return self.status.phase in ("Succeeded", "Failed")
