"""Every part of the control plane and of Kubernetes fails once, and nobody's traffic notices.

Two pods talk all the time, in plaintext from pod to pod and by mutual TLS from a peer; after each fault every request
must have been answered, and the control plane must be as healthy as before.
"""

import json
import os
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from mesh import names
from tests.cluster.kubectl import (
    Object,
    Space,
    eventually,
    is_injected,
    is_ready,
    run_kubectl,
    tell,
)
from tests.cluster.meshed import Mesh, restarts
from tests.cluster.plane import a_pod, an_account

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("steady")]

# The CA.


def test_without_the_ca_pods_start_and_identities_follow_when_it_is_back(mesh: Mesh) -> None:
    with mesh.plane.scaled_down(names.CA):
        mesh.space.apply(an_account("orphan"))
        mesh.space.apply(a_pod(mesh.space.cluster, "known", "client"), a_pod(mesh.space.cluster, "unknown", "orphan"))
        known, unknown = mesh.space.wait_ready("known", "unknown")
        assert is_injected(known)
        assert is_injected(unknown)
        mesh.wait_served(known)
        # Ready, reached in plaintext, and no mutual TLS yet.
        assert mesh.dial(unknown, 8080)["status"] == 200
        assert "error" in mesh.dial(unknown)
        assert mesh.secret("orphan") is None
        assert mesh.plane.verdict("ca-available") == "fail"
    mesh.wait_served(unknown)
    assert restarts(mesh.get("unknown")) == 0
    mesh.space.kubectl("delete", "pod", "known", "unknown", "--wait=false")


@pytest.mark.parametrize("fault", ["killed", "paused"])
def test_another_leader_takes_over_and_issues_nothing_anew(mesh: Mesh, fault: str) -> None:
    before, leader = mesh.plane.written(), mesh.plane.wait_leader()
    pid = mesh.machine.process_of(mesh.plane.leader_pod(), "ca")
    if fault == "killed":
        os.kill(pid, signal.SIGKILL)
        follower = mesh.plane.wait_leader(other_than=leader)
    else:
        # The old leader wakes up while another one works: it must find out before it writes.
        with mesh.machine.paused(pid):
            follower = mesh.plane.wait_leader(other_than=leader)
    mesh.space.apply(an_account(f"after-{fault}"))
    eventually(lambda: mesh.secret(f"after-{fault}"), "the new leader works")
    mesh.plane.wait_healthy(names.CA)
    assert mesh.plane.wait_leader() == follower
    assert mesh.plane.rewritten(before) == set()
    assert f"{mesh.plane.space.name}/{names.ROOT_SECRET}" in before


# The webhook.


def test_without_the_webhook_pods_start_plain_and_check_names_them(mesh: Mesh) -> None:
    cluster = mesh.space.cluster
    template = a_pod(cluster, "missed", "client", labels={"app": "missed"})
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "missed"},
        "spec": {
            "selector": {"matchLabels": {"app": "missed"}},
            "template": {"metadata": {"labels": {"app": "missed"}}, "spec": template["spec"]},
        },
    }
    with mesh.plane.scaled_down(names.WEBHOOK):
        mesh.space.apply(deployment)
        pod = one_ready(mesh.space, "app=missed")
        assert not is_injected(pod)
        assert mesh.dial(pod, 8080)["status"] == 200
        assert mesh.plane.verdict("webhook-available") == "fail"
    found = [each for each in mesh.plane.findings("pods-covered") if each["subject"].endswith("/missed")]
    assert [each["verdict"] for each in found] == ["fail"]
    restart = f"kubectl -n {mesh.space.name} rollout restart deployment/missed"
    assert found[0]["hint"] == restart
    cluster.kubectl(*restart.split()[1:])
    eventually(
        lambda: [is_injected(pod) and is_ready(pod) for pod in mesh.space.pods("app=missed")] == [True],
        "the command that `check` names gives the pod its sidecar",
    )
    mesh.space.kubectl("delete", "deployment", "missed")


def one_ready(where: Space, selector: str) -> Object:
    def found() -> Object | None:
        return next((pod for pod in where.pods(selector) if is_ready(pod)), None)

    return eventually(found, lambda: f"{selector} Ready: {[tell(pod) for pod in where.pods(selector)]}")


def test_webhook_that_does_not_answer_costs_its_timeout_and_no_more(
    mesh: Mesh, capsys: pytest.CaptureFixture[str]
) -> None:
    pids = [mesh.machine.process_of(pod, "webhook") for pod in mesh.plane.pods(names.WEBHOOK)]
    assert len(pids) == 2
    pod = a_pod(mesh.space.cluster, "unanswered", "client")
    with mesh.machine.paused(*pids):
        start = time.monotonic()
        done = mesh.space.run("create", "--filename=-", stdin=json.dumps(pod))
        took = time.monotonic() - start
    assert done.returncode == 0, done.stderr
    with capsys.disabled():
        print(f"\na pod was created in {took:.1f} s while the webhook did not answer (its timeout: 5 s)")
    # Nothing but the timeout ends such a call; without one the API server would wait for its client, 120 s here.
    assert took < 60
    created = mesh.space.wait_ready("unanswered")[0]
    assert not is_injected(created)
    mesh.space.kubectl("delete", "pod", "unanswered", "--wait=false")


# Kubernetes itself.


def test_api_server_and_etcd_die_and_everybody_recovers(mesh: Mesh) -> None:
    before = mesh.plane.written()
    with storage_gone(mesh):
        mesh.plaintext.wait_for_more(8)
        mesh.mutual.wait_for_more(8)
    mesh.machine.kill("kube-apiserver")
    try:
        mesh.plaintext.wait_for_more(8)
        mesh.mutual.wait_for_more(8)
    finally:
        mesh.machine.start("kube-apiserver")
    # Injection, a new identity and a repair: each needs another of the watches to be alive again.
    mesh.plane.wait_healthy()
    mesh.space.apply(an_account("afterwards"))
    eventually(lambda: mesh.secret("afterwards"), "an identity of a new ServiceAccount")
    pod = mesh.start("afterwards", "afterwards")
    assert is_injected(pod)
    mesh.wait_served(pod)
    assert mesh.plane.rewritten(before) == set()
    mesh.space.kubectl("delete", "secret", names.identity_secret_name("afterwards"))
    eventually(lambda: mesh.secret("afterwards"), "its identity again")
    mesh.space.kubectl("delete", "pod", "afterwards", "--wait=false")


@contextmanager
def storage_gone(mesh: Mesh) -> Generator[None]:
    mesh.machine.kill("etcd")
    try:
        eventually(
            lambda: run_kubectl(mesh.space.cluster, "get", "--raw=/readyz?timeout=5s").returncode != 0,
            "the API server misses its storage",
        )
        yield
    finally:
        mesh.machine.start("etcd")
        eventually(
            lambda: run_kubectl(mesh.space.cluster, "get", "--raw=/readyz").returncode == 0, "the API server is ready"
        )


def test_restarted_kubelet_leaves_pods_as_they_are(mesh: Mesh) -> None:
    envoys = [mesh.machine.envoy_of(mesh.get(name)) for name in ("server", "client")]
    mesh.machine.kill("kubelet")
    mesh.machine.start("kubelet")
    # A pod that starts shows that the new kubelet works; then it has looked at the others too.
    pod = mesh.start("newcomer", "client")
    mesh.wait_served(pod)
    assert [mesh.machine.envoy_of(mesh.get(name)) for name in ("server", "client")] == envoys
    mesh.space.kubectl("delete", "pod", "newcomer", "--wait=false")


# The pod's own proxy.


def test_killed_envoy_comes_back_without_a_restart_of_its_container(mesh: Mesh) -> None:
    pod = mesh.start("hurt", "client")
    mesh.wait_served(pod)
    envoy = mesh.machine.envoy_of(pod)
    assert envoy is not None
    os.kill(envoy, signal.SIGKILL)
    # Plaintext to the pod never went through it.
    assert mesh.dial(pod, 8080)["status"] == 200
    mesh.wait_served(pod)
    assert mesh.machine.envoy_of(pod) not in (None, envoy)
    after = mesh.get("hurt")
    assert is_ready(after)
    assert restarts(after) == 0
    events = [line for line in logs_of(mesh, "hurt").splitlines() if "event=envoy_ended" in line]
    assert len(events) == 1
    assert f"status={128 + signal.SIGKILL}" in events[0]
    mesh.space.kubectl("delete", "pod", "hurt", "--wait=false")


def logs_of(mesh: Mesh, pod: str) -> str:
    return mesh.space.kubectl("logs", pod, f"--container={names.PROXY_CONTAINER}")
