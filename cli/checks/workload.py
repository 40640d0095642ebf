"""Whose pod a pod is, and the command that makes it anew. Pure."""

from dataclasses import dataclass
from typing import Final

from mesh.pod import Pod

_HASH_LABEL: Final = "pod-template-hash"
_RESTARTABLE: Final = {"StatefulSet": "statefulset", "DaemonSet": "daemonset"}


@dataclass(frozen=True, slots=True)
class Owner:
    """What made a pod; `restart` is one line that gives it new pods."""

    kind: str
    namespace: str
    name: str
    restart: str

    @property
    def text(self) -> str:
        return f"{self.kind.lower()} {self.namespace}/{self.name}"


def owner_of(pod: Pod) -> Owner:
    """The workload of a pod: a Deployment where its ReplicaSet's name says so, else the controller, else the pod."""
    namespace, name = pod.metadata.namespace, pod.metadata.name
    kubectl = f"kubectl -n {namespace}"
    controller = next((ref for ref in pod.metadata.owner_references or () if ref.controller), None)
    if controller is None:
        restart = f"{kubectl} get pod {name} -o yaml > pod.yaml; {kubectl} replace --force -f pod.yaml"
        return Owner("Pod", namespace, name, restart)
    digest = pod.metadata.label(_HASH_LABEL)
    if controller.kind == "ReplicaSet" and digest and controller.name.endswith(f"-{digest}"):
        deployment = controller.name.removesuffix(f"-{digest}")
        return Owner("Deployment", namespace, deployment, f"{kubectl} rollout restart deployment/{deployment}")
    if controller.kind in _RESTARTABLE:
        restart = f"{kubectl} rollout restart {_RESTARTABLE[controller.kind]}/{controller.name}"
        return Owner(controller.kind, namespace, controller.name, restart)
    # A Job's or a bare ReplicaSet's controller makes a new pod for one that was deleted.
    return Owner(controller.kind, namespace, controller.name, f"{kubectl} delete pod {name}")
