"""The kubelet's probes have the results that they have without a sidecar, on open ports and on closed ones."""

import re
from collections.abc import Iterator
from typing import Any, Final

import pytest

from mesh import names
from tests.cluster.kubectl import OPTED_IN, Object, Space, eventually, is_injected, space, statuses_of, tell
from tests.cluster.matrix import DIRECT, FILES, OBSERVED, UNMESHED
from tests.cluster.results import Table
from tests.fixtures_cluster import RunningCluster

pytestmark = pytest.mark.cluster

CLOSED, LOOPBACK = 8099, 8098
SUCCEED: Final[dict[str, dict[str, Any]]] = {
    "HTTP": {"httpGet": {"path": "/", "port": 8080}},
    "TCP": {"tcpSocket": {"port": 7000}},
    "gRPC": {"grpc": {"port": 9000}},
    "exec": {"exec": {"command": ["true"]}},
}
FAIL: Final[dict[str, dict[str, Any]]] = {
    "HTTP, closed port": {"httpGet": {"path": "/", "port": CLOSED}},
    "TCP, closed port": {"tcpSocket": {"port": CLOSED}},
    "TCP, open on the loopback alone": {"tcpSocket": {"port": LOOPBACK}},
    "gRPC, closed port": {"grpc": {"port": CLOSED}},
    "exec, fails": {"exec": {"command": ["false"]}},
}
PODS: Final = {
    UNMESHED: {"labels": {names.INJECT_LABEL: names.INJECT_DISABLED}},
    DIRECT: {},
    OBSERVED: {"annotations": {f"{names.SETTING_PREFIX}inbound": "observed"}},
}
PROBES: Final = Table(
    "The kubelet's probes, against a pod without a sidecar",
    tuple((probe, inbound) for probe in (*SUCCEED, *FAIL) for inbound in (DIRECT, OBSERVED)),
)
# testbox-server on 8080, protocols/server.py on 7000 and 9000, and a listener that only the pod itself reaches.
SERVE: Final = f"testbox-server 8080 & nc -lk 127.0.0.1 {LOOPBACK} & exec python3 /files/server.py"


def container_name(probe: str) -> str:
    return re.sub(r"[^a-z]+", "-", probe.lower())


def pod_of(cluster: RunningCluster, name: str) -> Object:
    """One container that serves, and one for each probe."""
    image, small = cluster.image("testbox"), {"requests": {"cpu": "1m", "memory": "8Mi"}}
    files = [{"name": "files", "mountPath": "/files"}]
    containers: list[Object] = [
        {"name": "app", "image": image, "command": ["sh", "-c", SERVE], "volumeMounts": files, "resources": small}
    ]
    # The kubelet writes 25 Warnings about a pod and then one in five minutes (client-go, EventCorrelator). So those
    # that fail come first, and are tried seldom: each has said its word before a busy machine has started the others.
    for probe, what in (FAIL | SUCCEED).items():
        period = 20 if probe in FAIL else 5
        containers.append(
            {
                "name": container_name(probe),
                "image": image,
                "command": ["sleep", "infinity"],
                "readinessProbe": {**what, "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": 1},
                "resources": small,
            }
        )
    volumes = [{"name": "files", "configMap": {"name": "files"}}]
    spec = {"terminationGracePeriodSeconds": 1, "containers": containers, "volumes": volumes}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **PODS[name]}, "spec": spec}


@pytest.fixture(scope="module")
def home(cluster: RunningCluster) -> Iterator[Space]:
    with space(cluster, "probes", labels=OPTED_IN) as made:
        data = {"server.py": (FILES / "server.py").read_text()}
        made.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "files"}, "data": data})
        made.apply(*(pod_of(cluster, name) for name in PODS))
        yield made


def is_ready_now(home: Space, pod: str, probe: str) -> bool:
    return statuses_of(home.get("pod", pod)).get(container_name(probe), {}).get("ready", False)


def failures(home: Space, pod: str, probe: str) -> set[str]:
    """What the kubelet said about failed probes of that container, without what is the pod's own."""
    field = f"involvedObject.name={pod},reason=Unhealthy"
    events = home.get("events", f"--field-selector={field}")["items"]
    mine = f"{{{container_name(probe)}}}"
    addresses = [each["ip"] for each in home.get("pod", pod)["status"]["podIPs"]]
    messages = {each["message"] for each in events if each["involvedObject"].get("fieldPath", "").endswith(mine)}
    return {message.replace(address, "POD") for message in messages for address in addresses[:1]}


@pytest.mark.parametrize("probe", SUCCEED)
def test_probe_that_succeeds_without_a_sidecar_succeeds_with_one(home: Space, probe: str) -> None:
    for pod in PODS:
        eventually(
            lambda pod=pod: is_ready_now(home, pod, probe), lambda pod=pod: f"{probe}: {tell(home.get('pod', pod))}"
        )
        assert is_injected(home.get("pod", pod)) == (pod != UNMESHED)
    for pod in (DIRECT, OBSERVED):
        PROBES.record(probe, pod, "succeeds, as without", "the container is ready in each of the pods")


@pytest.mark.parametrize("probe", FAIL)
def test_probe_that_fails_without_a_sidecar_fails_with_one_and_in_the_same_words(home: Space, probe: str) -> None:
    for pod in (DIRECT, OBSERVED):
        words = eventually(
            lambda pod=pod: failures(home, pod, probe) & failures(home, UNMESHED, probe),
            lambda pod=pod: f"{probe}: {failures(home, pod, probe)}, without {failures(home, UNMESHED, probe)}",
        )
        assert not is_ready_now(home, pod, probe)
        told = min(words).removeprefix("Readiness probe failed: ").strip() or "exit code"
        PROBES.record(probe, pod, "fails, as without", f"`{told}`, and never ready")
