"""Tells pods' owners, by Events, what became of their pods: injected, or skipped and why.

Not the webhook's work: it writes nothing, so that a dry run is one. The same decision is made again here, from the
pod as it was stored. Pods that are older than this process's leadership were told about by its predecessor.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from ca.demand import has_sidecar
from kube.events import EventType, Regarding
from mesh import names
from mesh.config import MeshConfig
from mesh.pod import Namespace, Pod
from webhook.decision import Deny, Inject, Skip, SkipReason, decide

# What the user asked for, or what everybody knows: an Event would be noise.
_SILENT: Final = frozenset(
    {
        SkipReason.NOT_OPTED_IN,
        SkipReason.OPTED_OUT,
        SkipReason.SYSTEM_NAMESPACE,
        SkipReason.CONTROL_PLANE,
        SkipReason.ALREADY_INJECTED,
    }
)
# A pod that was created while no leader worked is still told about, if that was not long ago.
_LOOK_BACK: Final = timedelta(minutes=1)
ACTION: Final = "Inject"


class Emit(Protocol):
    """`kube.events.Recorder.emit`."""

    def __call__(
        self, regarding: Regarding, reason: str, message: str, type: EventType = "Normal", action: str = ""
    ) -> None: ...


class Narrator:
    """Looks at each pod once, when it first appears."""

    def __init__(
        self,
        config: MeshConfig,
        namespaces: Mapping[str, Namespace],
        emit: Emit,
        clock: Callable[[], datetime],
    ) -> None:
        self._config, self._namespaces, self._emit = config, namespaces, emit
        self._since = clock() - _LOOK_BACK
        self._told: set[str] = set()

    def pod_changed(self, key: str, pod: Pod | None) -> None:
        if pod is None:
            self._told.discard(key)
            return
        if key in self._told:
            return
        self._told.add(key)
        if created_at(pod) >= self._since:
            self._tell(pod)

    def _tell(self, pod: Pod) -> None:
        regarding = Regarding.of("v1", "Pod", pod.metadata)
        if has_sidecar(pod):
            identity = pod.metadata.annotation(names.IDENTITY_ANNOTATION) or "its identity"
            self._emit(regarding, "Injected", f"autotls added its sidecar; the pod is {identity}", action=ACTION)
            return
        namespace = self._namespaces.get(pod.metadata.namespace)
        if namespace is None:
            return
        match decide(pod, namespace, self._config):
            case Skip(reason=reason) if reason in _SILENT:
                return
            case Skip(reason=reason, message=message):
                text = f"autotls left the pod as it is ({reason.value}): {message}"
                self._emit(regarding, "Skipped", text, type="Warning", action=ACTION)
            case Inject():
                text = (
                    "autotls should have added its sidecar and did not: the webhook did not answer when the pod was "
                    "created, the namespace opted in later, or a node's kubelet is too old; `autotls check` tells. "
                    "Restart the workload to add it."
                )
                self._emit(regarding, "NotInjected", text, type="Warning", action=ACTION)
            case Deny():
                return  # it was admitted before the setting became strict; the webhook has its words


def created_at(pod: Pod) -> datetime:
    """The pod's creation; the beginning of time when it has none."""
    text = pod.metadata.creation_timestamp
    return datetime.fromisoformat(text) if text else datetime.min.replace(tzinfo=UTC)
