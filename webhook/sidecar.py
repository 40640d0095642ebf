"""The two containers that join a pod to the mesh.

Nothing in them depends on the pod: its name, namespace, ServiceAccount and addresses arrive by the downward API.
So one pair of containers serves every pod with the same settings, and the webhook encodes it once.
"""

from typing import Any, Final

from mesh import names
from mesh.config import MeshConfig, ResourceValues
from mesh.settings import PodSettings
from webhook.resources import sidecar_resources
from webhook.volumes import proxy_mounts

INIT_COMMAND: Final = "autotls-init"
PROXY_COMMAND: Final = "autotls-proxy"
WAIT_COMMAND: Final = "autotls-wait"
STATUS_PORT_NAME: Final = "autotls-status"

# Seconds that a strict application waits for its proxy before the kubelet starts the proxy again. The setting bounds
# how long an optional one is held; a strict one must not start without, and on a busy node Envoy needs more than two
# seconds: restarting it then, with the kubelet's growing back-off, is what makes it late.
STRICT_WAIT_SECONDS: Final = 60

_FIELD_VARIABLES: Final = {
    "AUTOTLS_POD_NAME": "metadata.name",
    "AUTOTLS_POD_NAMESPACE": "metadata.namespace",
    "AUTOTLS_SERVICE_ACCOUNT": "spec.serviceAccountName",
    "AUTOTLS_NODE_NAME": "spec.nodeName",
    # An annotation that is not there gives an empty value: no port declared.
    "AUTOTLS_PORTS": f"metadata.annotations['{names.PORTS_ANNOTATION}']",
}


def init_container(
    settings: PodSettings, config: MeshConfig, *, guaranteed: bool, redirect: bool = True
) -> dict[str, Any]:
    """The container that writes the redirect rules: first of all, so that no byte leaves before they stand.

    It is root with two capabilities in the pod's network namespace and overrides a pod-level `runAsNonRoot`,
    which would otherwise keep the pod from starting.
    """
    return {
        "name": names.INIT_CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": [INIT_COMMAND],
        "env": environment(settings, config, redirect=redirect),
        "resources": _resources(sidecar_resources(settings, guaranteed=guaranteed)),
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": False,
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def proxy_container(
    settings: PodSettings, config: MeshConfig, *, guaranteed: bool, redirect: bool = True
) -> dict[str, Any]:
    """The native sidecar. Its security context satisfies PodSecurity `restricted` whatever the pod's own says.

    No probe: a startup or readiness probe of a sidecar gates the app, and optional mode must never hold a pod.
    `postStart` waits a bounded time (AUTOTLS_WAIT_SECONDS) for a configured proxy instead.
    """
    return {
        "name": names.PROXY_CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "restartPolicy": "Always",
        "command": [PROXY_COMMAND],
        "env": environment(settings, config, redirect=redirect),
        "ports": [{"name": STATUS_PORT_NAME, "containerPort": names.STATUS_PORT, "protocol": "TCP"}],
        "lifecycle": {"postStart": {"exec": {"command": [WAIT_COMMAND]}}},
        "resources": _resources(sidecar_resources(settings, guaranteed=guaranteed)),
        "securityContext": {
            "runAsUser": names.PROXY_UID,
            "runAsGroup": names.PROXY_UID,
            "runAsNonRoot": True,
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": proxy_mounts(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def environment(settings: PodSettings, config: MeshConfig, *, redirect: bool) -> list[dict[str, Any]]:
    """Everything the proxy image reads, in a fixed order."""
    values = {
        "AUTOTLS_TRUST_DOMAIN": config.trust_domain,
        "AUTOTLS_CONTROL_PLANE_NAMESPACE": config.control_plane_namespace,
        "AUTOTLS_DISCOVERY_ADDRESS": discovery_address(config),
        "AUTOTLS_MODE": settings.mode,
        "AUTOTLS_INBOUND": settings.inbound,
        "AUTOTLS_LOG_LEVEL": settings.log_level,
        "AUTOTLS_WAIT_SECONDS": str(STRICT_WAIT_SECONDS if settings.mode == "strict" else settings.wait_seconds),
        "AUTOTLS_DRAIN_SECONDS": str(settings.drain_seconds),
        "AUTOTLS_SKIP_INBOUND_PORTS": settings.skip_inbound_ports,
        "AUTOTLS_SKIP_OUTBOUND_PORTS": settings.skip_outbound_ports,
        "AUTOTLS_REDIRECT": "on" if redirect else "off",
    }
    fields: list[dict[str, Any]] = [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in _FIELD_VARIABLES.items()
    ]
    return fields + [{"name": name, "value": value} for name, value in values.items()]


def discovery_address(config: MeshConfig) -> str:
    """`host:port` at which proxies find discovery; a complete name, so that no search domain is tried."""
    return f"{names.DISCOVERY}.{config.control_plane_namespace}.svc.{config.cluster_domain}:{names.XDS_PORT}"


def _resources(values: ResourceValues) -> dict[str, dict[str, str]]:
    return {
        "requests": {"cpu": values.cpu_request, "memory": values.memory_request},
        "limits": {"cpu": values.cpu_limit, "memory": values.memory_limit},
    }
