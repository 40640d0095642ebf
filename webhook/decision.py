"""Whether a pod joins the mesh: one function for the webhook, `autotls inject`, `autotls check` and the CA's Events.

`decide` walks an ordered chain of small checks; the first finding wins. Every reason is a value of `SkipReason`,
shown unchanged in log line, metric label, Event and CLI.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from mesh import names
from mesh.config import MeshConfig
from mesh.kubelet import OLDEST_WITH_NATIVE_SIDECARS, KubeletVersion
from mesh.pod import Namespace, Pod
from mesh.settings import PodSettings, SettingError, settings_for
from webhook.resources import is_guaranteed, pod_level_shortage, sidecar_resources

PSS_ENFORCE_LABEL: Final = "pod-security.kubernetes.io/enforce"
MIRROR_ANNOTATION: Final = "kubernetes.io/config.mirror"
OS_LABEL: Final = "kubernetes.io/os"
NO_REDIRECT: Final = "no_redirect"
INJECTED: Final = "injected"


class SkipReason(StrEnum):
    """Why a pod was left alone. A closed vocabulary: users see these words."""

    SYSTEM_NAMESPACE = "system_namespace"
    CONTROL_PLANE = "control_plane"
    ALREADY_INJECTED = "already_injected"
    OPTED_OUT = "opted_out"
    NOT_OPTED_IN = "not_opted_in"
    MIRROR_POD = "mirror_pod"
    HOST_NETWORK = "host_network"
    WINDOWS = "windows"
    KUBELET_TOO_OLD = "kubelet_too_old"
    NAME_CLASH = "name_clash"
    UID_CLASH = "uid_clash"
    PORT_CLASH = "port_clash"
    POD_RESOURCES_TOO_SMALL = "pod_resources_too_small"


@dataclass(frozen=True, slots=True)
class Inject:
    """The pod gets the sidecar. Without `redirect`, PodSecurity would refuse the redirect container's NET_ADMIN:
    the pod accepts mutual TLS but its own outbound traffic stays plaintext."""

    settings: PodSettings
    redirect: bool
    warnings: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """The word for logs, metrics and Events."""
        return INJECTED if self.redirect else NO_REDIRECT


@dataclass(frozen=True, slots=True)
class Skip:
    """The pod is admitted as it is."""

    reason: SkipReason
    message: str


@dataclass(frozen=True, slots=True)
class Deny:
    """Strict mode and a setting that is not allowed: running with another value could mean plaintext."""

    message: str


Decision = Inject | Skip | Deny


@dataclass(frozen=True, slots=True)
class _Case:
    """What the checks look at."""

    pod: Pod
    namespace: Namespace
    config: MeshConfig
    oldest_kubelet: KubeletVersion | None
    called: bool

    @property
    def namespace_name(self) -> str:
        return self.namespace.metadata.name or self.pod.metadata.namespace


def decide(
    pod: Pod,
    namespace: Namespace,
    config: MeshConfig,
    *,
    oldest_kubelet: KubeletVersion | None = None,
    called: bool = False,
) -> Decision:
    """What happens to `pod`, created in `namespace`.

    `called` says that the API server's selectors already matched: it counts as opted in where no label is known
    (a namespace may be labelled and used before its change reaches our reflector). `oldest_kubelet` is None where
    nodes are not known; then nothing is skipped for it.

    Raises ConfigError if the chart's own values are invalid.
    """
    case = _Case(pod, namespace, config, oldest_kubelet, called)
    for check in _CHECKS:
        skip = check(case)
        if skip is not None:
            return skip
    settings, errors = settings_for(pod.metadata, namespace.metadata, config)
    if errors and settings.mode == "strict":
        return Deny("autotls: " + "; ".join(error.message for error in errors))
    redirect = not _refuses_net_admin(case)
    ours = sidecar_resources(settings, guaranteed=is_guaranteed(pod)) if pod.spec.resources else None
    shortage = pod_level_shortage(pod.spec, ours, redirect=redirect) if ours else None
    if shortage:
        return Skip(SkipReason.POD_RESOURCES_TOO_SMALL, f"its pod-level resources are too small: {shortage}")
    return Inject(settings, redirect, _warnings(case, settings, errors, redirect=redirect))


def _system_namespace(case: _Case) -> Skip | None:
    if case.namespace_name in names.SYSTEM_NAMESPACES or case.namespace_name in case.config.excluded_namespaces:
        return Skip(SkipReason.SYSTEM_NAMESPACE, f"namespace {case.namespace_name} is excluded from injection")
    return None


def _control_plane(case: _Case) -> Skip | None:
    if case.namespace_name == case.config.control_plane_namespace or case.pod.metadata.label(names.CONTROL_PLANE_LABEL):
        return Skip(SkipReason.CONTROL_PLANE, "it belongs to the autotls control plane")
    return None


def _already_injected(case: _Case) -> Skip | None:
    # The container counts, not the label: anybody can write the label into a manifest.
    for container in case.pod.spec.init_containers or ():
        if container.name == names.PROXY_CONTAINER and container.restart_policy == "Always":
            return Skip(SkipReason.ALREADY_INJECTED, f"it already has the sidecar {names.PROXY_CONTAINER}")
    return None


def _opted_out(case: _Case) -> Skip | None:
    pod, namespace = _inject_labels(case)
    if pod == names.INJECT_DISABLED:
        return Skip(SkipReason.OPTED_OUT, f"its label {names.INJECT_LABEL} says {names.INJECT_DISABLED}")
    if namespace == names.INJECT_DISABLED and pod != names.INJECT_ENABLED:
        return Skip(SkipReason.OPTED_OUT, f"its namespace's label {names.INJECT_LABEL} says {names.INJECT_DISABLED}")
    return None


def _not_opted_in(case: _Case) -> Skip | None:
    if case.called or names.INJECT_ENABLED in _inject_labels(case):
        return None
    return Skip(
        SkipReason.NOT_OPTED_IN,
        f"neither it nor its namespace has the label {names.INJECT_LABEL}={names.INJECT_ENABLED}",
    )


def _inject_labels(case: _Case) -> tuple[str | None, str | None]:
    return case.pod.metadata.label(names.INJECT_LABEL), case.namespace.metadata.label(names.INJECT_LABEL)


def _mirror_pod(case: _Case) -> Skip | None:
    if case.pod.metadata.annotation(MIRROR_ANNOTATION) is not None:
        return Skip(SkipReason.MIRROR_POD, "it mirrors a static pod, which the kubelet runs from a file")
    return None


def _host_network(case: _Case) -> Skip | None:
    if case.pod.spec.host_network:
        return Skip(SkipReason.HOST_NETWORK, "it uses the host's network: a redirect there would catch the whole node")
    return None


def _windows(case: _Case) -> Skip | None:
    spec = case.pod.spec
    system = spec.os.name if spec.os else (spec.node_selector or {}).get(OS_LABEL, "")
    if system.lower() == "windows":
        return Skip(SkipReason.WINDOWS, "it runs on Windows, for which there is no sidecar")
    return None


def _kubelet_too_old(case: _Case) -> Skip | None:
    oldest = case.oldest_kubelet
    if oldest is not None and oldest < OLDEST_WITH_NATIVE_SIDECARS:
        return Skip(
            SkipReason.KUBELET_TOO_OLD,
            f"a node's kubelet is {oldest}; native sidecars need {OLDEST_WITH_NATIVE_SIDECARS}",
        )
    return None


def _name_clash(case: _Case) -> Skip | None:
    spec = case.pod.spec
    for container in spec.all_containers:
        if container.name in (names.INIT_CONTAINER, names.PROXY_CONTAINER):
            return Skip(SkipReason.NAME_CLASH, f"a container of its own is named {container.name}")
    for volume in spec.volumes or ():
        if volume.name in (names.IDENTITY_VOLUME, names.RUN_VOLUME):
            return Skip(SkipReason.NAME_CLASH, f"a volume of its own is named {volume.name}")
    return None


def _uid_clash(case: _Case) -> Skip | None:
    # Traffic of the proxy's uid is not redirected: another container with it would silently leave the mesh.
    spec = case.pod.spec
    if spec.security_context and spec.security_context.run_as_user == names.PROXY_UID:
        return Skip(SkipReason.UID_CLASH, f"it runs as uid {names.PROXY_UID}, which is the proxy's")
    for container in spec.all_containers:
        if container.security_context and container.security_context.run_as_user == names.PROXY_UID:
            return Skip(
                SkipReason.UID_CLASH, f"container {container.name} runs as uid {names.PROXY_UID}, which is the proxy's"
            )
    return None


def _port_clash(case: _Case) -> Skip | None:
    first, last = names.RESERVED_PORTS[0], names.RESERVED_PORTS[-1]
    for container in case.pod.spec.all_containers:
        for port in container.ports or ():
            if port.container_port in names.RESERVED_PORTS:
                return Skip(
                    SkipReason.PORT_CLASH,
                    f"container {container.name} uses port {port.container_port}; {first}-{last} are the proxy's",
                )
    return None


# What the user said comes before what the pod is, so that a pod nobody asked for is never reported as broken.
_CHECKS: Final[tuple[Callable[[_Case], Skip | None], ...]] = (
    _system_namespace,
    _control_plane,
    _already_injected,
    _opted_out,
    _not_opted_in,
    _mirror_pod,
    _host_network,
    _windows,
    _kubelet_too_old,
    _name_clash,
    _uid_clash,
    _port_clash,
)


def _refuses_net_admin(case: _Case) -> bool:
    """True where PodSecurity would refuse the redirect container.

    A label that is no level counts as `restricted`: so does the API server
    (k8s.io/pod-security-admission/api/helpers.go, PolicyToEvaluate).
    """
    level = case.namespace.metadata.label(PSS_ENFORCE_LABEL)
    return (case.config.pod_security_default if level is None else level) != "privileged"


def _warnings(
    case: _Case, settings: PodSettings, errors: tuple[SettingError, ...], *, redirect: bool
) -> tuple[str, ...]:
    warnings = [error.message for error in errors]
    for value in _inject_labels(case):
        if value not in (None, names.INJECT_ENABLED, names.INJECT_DISABLED):
            warnings.append(SettingError(names.INJECT_LABEL, value, "enabled or disabled").message)
    if settings.mode == "strict" and not redirect:
        warnings.append("strict, but PodSecurity refuses the redirect container: outbound traffic stays plaintext")
    return tuple(warnings)
