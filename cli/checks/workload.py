"""Whose pod a pod is, and the command that makes it anew. Pure."""

from dataclasses import dataclass
from typing import Final

from mesh import names
from mesh.pod import Pod
from mesh.workload import workload_of

_RESTARTABLE: Final = frozenset({"deployment", "statefulset", "daemonset"})


@dataclass(frozen=True, slots=True)
class Owner:
    """What made a pod; `restart` is one line that gives it new pods."""

    kind: str
    namespace: str
    name: str
    restart: str

    @property
    def text(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


def owner_of(pod: Pod) -> Owner:
    """The workload of a pod (mesh.workload), and how it gets a new one."""
    namespace, name = pod.metadata.namespace, pod.metadata.name
    kubectl = f"kubectl -n {namespace}"
    workload = workload_of(pod)
    if workload.kind == "pod":
        restart = f"{kubectl} get pod {name} -o yaml > pod.yaml; {kubectl} replace --force -f pod.yaml"
    elif workload.kind in _RESTARTABLE:
        restart = f"{kubectl} rollout restart {workload.kind}/{workload.name}"
    else:
        # A Job's or a bare ReplicaSet's controller makes a new pod for one that was deleted.
        restart = f"{kubectl} delete pod {name}"
    return Owner(workload.kind, namespace, workload.name, restart)


def is_injected(pod: Pod) -> bool:
    """Whether the pod has our sidecar."""
    return any(each.name == names.PROXY_CONTAINER for each in pod.spec.init_containers or ())


def runs(pod: Pod) -> bool:
    """Whether its sidecar runs, in the kubelet's words."""
    statuses = (each for each in pod.status.init_container_statuses or () if each.name == names.PROXY_CONTAINER)
    return any(each.state and each.state.running is not None for each in statuses)
