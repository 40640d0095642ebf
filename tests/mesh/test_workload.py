"""A pod is known by what made it."""

from __future__ import annotations

import pytest

from mesh.pod import ObjectMeta, OwnerReference, Pod
from mesh.workload import workload_of


def owned(kind: str, name: str, *, controller: bool = True, **labels: str) -> Pod:
    owner = OwnerReference(kind=kind, name=name, uid="u", controller=controller)
    marks = {key.replace("_", "-"): text for key, text in labels.items()}
    return Pod(metadata=ObjectMeta(name="web-6d4f-x", namespace="shop", labels=marks, owner_references=(owner,)))


@pytest.mark.parametrize(
    ("case", "pod", "expected"),
    [
        ("nobody's", Pod(metadata=ObjectMeta(name="alone", namespace="shop")), "shop/pod/alone"),
        ("a Deployment's", owned("ReplicaSet", "web-6d4f", pod_template_hash="6d4f"), "shop/deployment/web"),
        ("a bare ReplicaSet's", owned("ReplicaSet", "web"), "shop/replicaset/web"),
        ("a StatefulSet's", owned("StatefulSet", "db"), "shop/statefulset/db"),
        ("a DaemonSet's", owned("DaemonSet", "agent"), "shop/daemonset/agent"),
        ("a Job's", owned("Job", "import-2024"), "shop/job/import-2024"),
        ("a CronJob's", owned("Job", "backup-29431205"), "shop/cronjob/backup"),
        ("of an operator's kind", owned("Database", "main"), "shop/database/main"),
        ("of an owner that is no controller", owned("Node", "n1", controller=False), "shop/pod/web-6d4f-x"),
    ],
)
def test_a_pod_is_known_by_its_workload(case: str, pod: Pod, expected: str) -> None:
    assert str(workload_of(pod)) == expected, case
