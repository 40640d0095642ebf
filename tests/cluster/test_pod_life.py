"""Init containers, a native sidecar of the user's and a Job's own container are all in the mesh, and the Job ends."""

import json
from typing import Final

import pytest

from mesh import names
from tests.cluster.kubectl import Object, Space, a_pod, eventually, is_injected, statuses_of, tell
from tests.cluster.plane import a_pod as a_server
from tests.cluster.plane import an_account
from tests.cluster.results import Table
from tests.fixtures_cluster import RunningCluster

pytestmark = pytest.mark.cluster

INIT, SIDECAR, APP = "an init container", "a native sidecar of the user's", "the Job's container"
LIFE: Final = Table("A Job in the mesh", tuple((case, "ClusterIP") for case in (INIT, SIDECAR, APP)))
# Until the server's peer is its own pod, which is mutual TLS: a proxy whose files or configuration are late passes
# everything through at first.
ASK: Final = """
until answer=$(curl -sS --fail --max-time 120 http://server/) && echo "$answer" | grep -q '"peer": "'$SERVER'"'; do
  sleep 0.2
done
echo "$answer"
"""
CONTAINERS: Final = {INIT: "before", SIDECAR: "beside", APP: "app"}


def job(cluster: RunningCluster, server: str) -> Object:
    spec = a_pod(cluster, "worker")["spec"]
    (app,) = spec["containers"]
    common = {**app, "env": [{"name": "SERVER", "value": server}]}
    before = {**common, "name": "before", "command": ["sh", "-c", ASK]}
    # As process 1 it hears SIGTERM only if it says so.
    beside = ["sh", "-c", f"trap 'exit 0' TERM; {ASK} sleep infinity & wait"]
    companion = {**common, "name": "beside", "command": beside, "restartPolicy": "Always"}
    spec |= {
        "serviceAccountName": "worker",
        "terminationGracePeriodSeconds": 60,
        "restartPolicy": "Never",
        "initContainers": [before, companion],
        "containers": [{**common, "command": ["sh", "-c", ASK]}],
    }
    template = {"metadata": {"labels": {"app": "worker"}}, "spec": spec}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "worker"},
        "spec": {"backoffLimit": 0, "template": template},
    }


def test_every_container_of_a_job_speaks_mutual_tls_and_the_job_ends(shop: Space) -> None:
    shop.apply(*map(an_account, ("server", "worker")))
    service = {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]}
    shop.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "server"}, "spec": service},
        a_server(shop.cluster, "server", "server", labels={"app": "server"}),
    )
    server = shop.wait_ready("server")[0]["status"]["podIP"]
    shop.apply(job(shop.cluster, server))

    def workers() -> list[Object]:
        return shop.get("pods", "--selector=app=worker")["items"]

    eventually(
        lambda: shop.get("job", "worker").get("status", {}).get("succeeded") == 1,
        lambda: f"the Job ends: {[tell(pod) for pod in workers()]}",
    )
    (pod,) = workers()
    assert is_injected(pod)

    def ended() -> dict[str, Object]:
        states = {name: status["state"].get("terminated") for name, status in statuses_of(workers()[0]).items()}
        return states if all(states.values()) else {}

    codes = {name: state["exitCode"] for name, state in eventually(ended, "every container has ended").items()}
    assert set(codes.values()) == {0}, codes
    assert names.PROXY_CONTAINER in codes
    for case, container in CONTAINERS.items():
        said = shop.kubectl("logs", pod["metadata"]["name"], f"--container={container}").splitlines()
        assert json.loads(said[-1])["peer"] == server  # before it: attempts that came to nothing
        LIFE.record(case, "ClusterIP", "mutual TLS; the Job ends", "the server's peer is its own pod; exit code 0")
