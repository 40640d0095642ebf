"""Projections of the Kubernetes objects that tables are made from. Source: k8s.io/api/core/v1 types.go."""

from typing import Final

import msgspec

from mesh.pod import Container, ContainerPort, ObjectMeta, Pod, PodSpec, Wire

PODS: Final = "/api/v1/pods"
NODES: Final = "/api/v1/nodes"


class EnvVar(Wire, frozen=True):
    name: str = ""
    value: str | None = None


class _PortAction(Wire, frozen=True):
    """HTTPGetAction, TCPSocketAction, GRPCAction: a number, or the name of a container's port."""

    port: int | str = 0


class Probe(Wire, frozen=True):
    http_get: _PortAction | None = None
    tcp_socket: _PortAction | None = None
    grpc: _PortAction | None = None

    def port(self, declared: tuple[ContainerPort, ...]) -> int | None:
        """Where the kubelet connects to; None for a command, or a name that no port has."""
        for action in (self.http_get, self.tcp_socket, self.grpc):
            if action is not None:
                named = {each.name: each.container_port for each in declared}
                return action.port if isinstance(action.port, int) else named.get(action.port)
        return None


class SeenContainer(Container, frozen=True):
    env: tuple[EnvVar, ...] | None = None
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None

    def variable(self, name: str) -> str:
        """The value of an environment variable; empty where it has none."""
        return next((each.value or "" for each in self.env or () if each.name == name), "")

    @property
    def probed_ports(self) -> tuple[int, ...]:
        probes = (self.liveness_probe, self.readiness_probe, self.startup_probe)
        ports = (probe.port(self.ports or ()) for probe in probes if probe)
        return tuple(port for port in ports if port)


class SeenPodSpec(PodSpec, frozen=True):
    containers: tuple[SeenContainer, ...] = ()
    init_containers: tuple[SeenContainer, ...] | None = None


class SeenPod(Pod, frozen=True):
    """A pod with what tells how its proxy runs and where the kubelet probes."""

    spec: SeenPodSpec = SeenPodSpec()


class NodeAddress(Wire, frozen=True):
    address: str = ""


class SeenNodeStatus(Wire, frozen=True):
    addresses: tuple[NodeAddress, ...] | None = None


class SeenNodeSpec(Wire, frozen=True):
    pod_cidrs: tuple[str, ...] | None = msgspec.field(name="podCIDRs", default=None)


class SeenNode(Wire, frozen=True):
    metadata: ObjectMeta
    spec: SeenNodeSpec = SeenNodeSpec()
    status: SeenNodeStatus = SeenNodeStatus()
