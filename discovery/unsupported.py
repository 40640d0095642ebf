"""Services that autotls leaves to kube-proxy, because Envoy as configured here would balance them differently."""

from enum import StrEnum

from discovery.kinds import Service
from mesh.pod import ObjectMeta

# Topology Aware Routing's annotations, old and new (kube-proxy then honours the slices' hints).
_TOPOLOGY_ANNOTATIONS = ("service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints")


class Unsupported(StrEnum):
    """The reason, shown unchanged in the metric and by `check`."""

    SESSION_AFFINITY = "session_affinity"
    INTERNAL_TRAFFIC_POLICY_LOCAL = "internal_traffic_policy_local"
    TRAFFIC_DISTRIBUTION = "traffic_distribution"


def unsupported(service: Service) -> Unsupported | None:
    """Why `service` gets no listener; None if it does. Headless Services are not balanced, so nothing can differ."""
    spec = service.spec
    if not spec.virtual_addresses:
        return None
    if spec.session_affinity == "ClientIP":
        return Unsupported.SESSION_AFFINITY
    if spec.internal_traffic_policy == "Local":
        return Unsupported.INTERNAL_TRAFFIC_POLICY_LOCAL
    if spec.traffic_distribution or _topology_aware(service.metadata):
        return Unsupported.TRAFFIC_DISTRIBUTION
    return None


def _topology_aware(metadata: ObjectMeta) -> bool:
    values = (metadata.annotation(name) for name in _TOPOLOGY_ANNOTATIONS)
    return any(value not in (None, "", "Disabled", "disabled") for value in values)
