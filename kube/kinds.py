"""Projections of the kinds that the control plane reads or writes, beside `mesh.pod`, and where each kind lives.

Like those, they name only what is read and accept everything else.
"""

import base64
from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec

from kube.errors import UnknownKindError
from mesh.pod import ObjectMeta, Wire


class HasMetadata(Protocol):
    """Any projection of a whole object."""

    @property
    def metadata(self) -> ObjectMeta: ...


class Bare(Wire, frozen=True):
    """An object of any kind, its metadata alone."""

    metadata: ObjectMeta = ObjectMeta()


class ListMeta(Wire, frozen=True):
    resource_version: str = ""
    # `continue` is a word of Python's.
    next_page: str = msgspec.field(name="continue", default="")


class ServiceAccount(Wire, frozen=True):
    metadata: ObjectMeta


class ConfigMap(Wire, frozen=True):
    metadata: ObjectMeta
    data: Mapping[str, str] | None = None


class Secret(Wire, frozen=True):
    """A Secret; `data` is base64 text as on the wire and never shows in a repr."""

    metadata: ObjectMeta
    type: str = ""
    data: Mapping[str, str] | None = None

    def decoded(self) -> dict[str, bytes]:
        """The data as bytes. The API server accepts only valid base64, so this cannot fail on what it served."""
        return {key: base64.b64decode(text) for key, text in (self.data or {}).items()}

    def __repr__(self) -> str:
        keys = ", ".join(sorted(self.data or ()))
        return f"Secret({self.metadata.namespace}/{self.metadata.name}, type={self.type!r}, data=<{keys}>)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        # msgspec gives every Struct one that shows all fields; rich prefers it to __repr__.
        return [("metadata", self.metadata), ("type", self.type), ("keys", sorted(self.data or ()))]


class NodeSystemInfo(Wire, frozen=True):
    kubelet_version: str = ""
    operating_system: str = ""


class NodeStatus(Wire, frozen=True):
    node_info: NodeSystemInfo = NodeSystemInfo()


class Node(Wire, frozen=True):
    metadata: ObjectMeta
    status: NodeStatus = NodeStatus()


class LeaseSpec(Wire, frozen=True):
    """coordination.k8s.io/v1 LeaseSpec; times are MicroTime text (RFC 3339 with six digits)."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(Wire, frozen=True):
    metadata: ObjectMeta
    spec: LeaseSpec = LeaseSpec()


class WebhookClientConfig(Wire, frozen=True):
    ca_bundle: str | None = None
    url: str | None = None


class MutatingWebhook(Wire, frozen=True):
    name: str = ""
    client_config: WebhookClientConfig = WebhookClientConfig()
    failure_policy: str | None = None


class MutatingWebhookConfiguration(Wire, frozen=True):
    metadata: ObjectMeta
    webhooks: tuple[MutatingWebhook, ...] | None = None


class Resource(Wire, frozen=True):
    """Where objects of a kind live."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True


def collection_path(api_version: str, plural: str, namespace: str | None = None) -> str:
    """`/api/v1/secrets`, `/apis/apps/v1/namespaces/x/deployments`: of one namespace, or of all when None."""
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    return f"{root}/namespaces/{namespace}/{plural}" if namespace else f"{root}/{plural}"


RESOURCES: Final = (
    Resource("v1", "ConfigMap", "configmaps"),
    Resource("v1", "Event", "events"),
    Resource("v1", "LimitRange", "limitranges"),
    Resource("v1", "Namespace", "namespaces", False),
    Resource("v1", "Node", "nodes", False),
    Resource("v1", "Pod", "pods"),
    Resource("v1", "ResourceQuota", "resourcequotas"),
    Resource("v1", "Secret", "secrets"),
    Resource("v1", "Service", "services"),
    Resource("v1", "ServiceAccount", "serviceaccounts"),
    Resource("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", False),
    Resource("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", False),
    Resource(
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
        False,
    ),
    Resource("apps/v1", "DaemonSet", "daemonsets"),
    Resource("apps/v1", "Deployment", "deployments"),
    Resource("apps/v1", "ReplicaSet", "replicasets"),
    Resource("apps/v1", "StatefulSet", "statefulsets"),
    Resource("batch/v1", "CronJob", "cronjobs"),
    Resource("batch/v1", "Job", "jobs"),
    Resource("coordination.k8s.io/v1", "Lease", "leases"),
    Resource("discovery.k8s.io/v1", "EndpointSlice", "endpointslices"),
    Resource("events.k8s.io/v1", "Event", "events"),
    Resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    Resource("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", False),
    Resource("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", False),
    Resource("rbac.authorization.k8s.io/v1", "Role", "roles"),
    Resource("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
)
_BY_KIND: Final = {(resource.api_version, resource.kind): resource for resource in RESOURCES}

# Collections of all namespaces, for reflectors.
CONFIG_MAPS: Final = collection_path("v1", "configmaps")
NAMESPACES: Final = collection_path("v1", "namespaces")
NODES: Final = collection_path("v1", "nodes")
PODS: Final = collection_path("v1", "pods")
SECRETS: Final = collection_path("v1", "secrets")
SERVICE_ACCOUNTS: Final = collection_path("v1", "serviceaccounts")
MUTATING_WEBHOOK_CONFIGURATIONS: Final = collection_path(
    "admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations"
)


def resource_of(api_version: str, kind: str) -> Resource:
    """Where objects of that kind live. Raises UnknownKindError."""
    try:
        return _BY_KIND[(api_version, kind)]
    except KeyError:
        raise UnknownKindError(
            f"no path known for {kind or 'an object without kind'} of {api_version or 'no apiVersion'}",
            hint="add it to kube.kinds.RESOURCES",
        ) from None


def key_of(metadata: ObjectMeta) -> str:
    """`namespace/name`, or `name` of a cluster-scoped object."""
    return f"{metadata.namespace}/{metadata.name}" if metadata.namespace else metadata.name
