"""Whose pod a pod is: the workload that operators know it by. Pure."""

from dataclasses import dataclass
from typing import Final

from mesh.pod import Pod

_HASH_LABEL: Final = "pod-template-hash"
# A CronJob names its Jobs `<cronjob>-<scheduled time in minutes since 1970>` (kubernetes pkg/controller/cronjob
# utils.go getJobName): eight digits until 2160.
_MINUTES: Final = 8


@dataclass(frozen=True, slots=True)
class Workload:
    """`kind` in lower case: deployment, statefulset, daemonset, job, cronjob, replicaset, pod, or what else made it."""

    namespace: str
    kind: str
    name: str

    def __str__(self) -> str:
        """`shop/deployment/web`, as labels and messages have it."""
        return f"{self.namespace}/{self.kind}/{self.name}"


def workload_of(pod: Pod) -> Workload:
    """The Deployment or CronJob where the controller's name says so, else the controller, else the pod itself."""
    namespace = pod.metadata.namespace
    owner = next((ref for ref in pod.metadata.owner_references or () if ref.controller), None)
    if owner is None:
        return Workload(namespace, "pod", pod.metadata.name)
    digest = pod.metadata.label(_HASH_LABEL)
    if owner.kind == "ReplicaSet" and digest and owner.name.endswith(f"-{digest}"):
        return Workload(namespace, "deployment", owner.name.removesuffix(f"-{digest}"))
    cron, dash, minutes = owner.name.rpartition("-")
    if owner.kind == "Job" and dash and len(minutes) == _MINUTES and minutes.isascii() and minutes.isdigit():
        return Workload(namespace, "cronjob", cron)
    return Workload(namespace, owner.kind.lower(), owner.name)
