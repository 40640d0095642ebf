"""The control plane's pods pass Pod Security "restricted", and limit themselves beyond it."""

from typing import Any

import pytest

from mesh import names
from tests.chart.chart import render

# https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip


def violations(pod: dict[str, Any]) -> list[str]:
    """What the "restricted" profile would refuse in a PodSpec."""
    found = [f"{field} is set" for field in ("hostNetwork", "hostPID", "hostIPC") if pod.get(field)]
    for volume in pod.get("volumes", []):
        found += [f"volume {volume['name']}: {kind}" for kind in volume.keys() - {"name"} - RESTRICTED_VOLUMES]
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        own = container.get("securityContext", {})
        context = {**pod.get("securityContext", {}), **own}
        checks = {
            "runAsNonRoot": context.get("runAsNonRoot") is True,
            "runAsUser 0": context.get("runAsUser") != 0,
            "seccompProfile": context.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "privileged": not own.get("privileged"),
            "capabilities.drop": "ALL" in own.get("capabilities", {}).get("drop", []),
            "capabilities.add": set(own.get("capabilities", {}).get("add", [])) <= {"NET_BIND_SERVICE"},
            "hostPort": not any(port.get("hostPort") for port in container.get("ports", [])),
        }
        found += [f"{container['name']}: {name}" for name, passed in checks.items() if not passed]
    return found


@pytest.fixture(params=[names.WEBHOOK, names.CA, names.DISCOVERY, names.DASHBOARD])
def pod(request: pytest.FixtureRequest) -> dict[str, Any]:
    return render().get("Deployment", request.param)["spec"]["template"]["spec"]


def test_no_other_object_makes_pods() -> None:
    makers = {item["metadata"]["name"] for item in render().objects if "template" in item.get("spec", {})}
    assert makers == {names.WEBHOOK, names.CA, names.DISCOVERY, names.DASHBOARD}


def test_the_check_itself_finds_what_it_should() -> None:
    assert violations({"containers": [{"name": "x"}], "hostNetwork": True}) == [
        "hostNetwork is set",
        "x: runAsNonRoot",
        "x: seccompProfile",
        "x: allowPrivilegeEscalation",
        "x: capabilities.drop",
    ]


def test_pod_passes_restricted(pod: dict[str, Any]) -> None:
    assert violations(pod) == []


def test_pod_has_a_read_only_root_and_a_fixed_user(pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["runAsGroup"] == 65532
    for container in pod["containers"]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
