"""Every part of the control plane and of Kubernetes fails once, and nobody's traffic notices.

Two pods talk all the time, in plaintext from pod to pod and by mutual TLS from a peer; after each fault every request
must have been answered, and the control plane must be as healthy as before.
"""

import base64
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from mesh import names
from tests.cluster.kubectl import (
    OPTED_IN,
    Object,
    Space,
    eventually,
    is_injected,
    is_ready,
    run_kubectl,
    space,
    statuses_of,
    tell,
)
from tests.cluster.machine import Machine, Watch, watching
from tests.cluster.plane import Plane, a_pod, an_account, helm, save_identity
from tests.fixtures_cluster import RunningCluster

pytestmark = pytest.mark.cluster

ARRIVAL_S: Final = 200.0
LOOKING_S: Final = 15.0
"""How long something is watched that must not happen."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """A namespace with a server and a client whose requests go on all the time."""

    space: Space
    plane: Plane
    machine: Machine
    peer: Path
    """The client's identity."""
    plaintext: Watch
    mutual: Watch

    def get(self, pod: str) -> Object:
        return self.space.get("pod", pod)

    def secret(self, account: str) -> Object | None:
        return self.space.find("secret", names.identity_secret_name(account))

    def start(self, name: str, account: str) -> Object:
        """A pod, once it is Ready."""
        self.space.apply(a_pod(self.space.cluster, name, account))
        return self.space.wait_ready(name)[0]

    def dial(self, pod: Object, port: int = names.INBOUND_TLS_PORT) -> dict[str, Any]:
        identity = str(self.peer) if port == names.INBOUND_TLS_PORT else None
        return self.machine.call({"address": pod["status"]["podIP"], "port": port, "identity": identity})[0]

    def wait_served(self, pod: Object) -> None:
        """Peers reach the pod by mutual TLS, and it is the ServiceAccount it should be."""
        told: list[dict[str, Any]] = []
        wanted = f"spiffe://cluster.local/ns/{self.space.name}/sa/{pod['spec']['serviceAccountName']}"

        def served() -> bool:
            told[:] = [self.dial(pod)]
            return told[0].get("status") == 200 and told[0]["peer"] == wanted

        eventually(served, lambda: f"{pod['metadata']['name']} by mutual TLS: {told}", deadline_s=ARRIVAL_S)


@pytest.fixture(scope="module")
def mesh(cluster: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    plane, machine = Plane(cluster), Machine(cluster)
    plane.wait_healthy()
    folder = tmp_path_factory.mktemp("mesh")
    with ExitStack() as stack:
        home = stack.enter_context(space(cluster, "faults", labels=OPTED_IN))
        service = {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]}
        home.apply(
            *map(an_account, ("server", "client")),
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "server"}, "spec": service},
        )
        secret = eventually(lambda: home.find("secret", names.identity_secret_name("client")), "the client's identity")
        peer = save_identity(secret, folder / "client")
        home.apply(a_pod(cluster, "server", "server", labels={"app": "server"}), a_pod(cluster, "client", "client"))
        server, client = home.wait_ready("server", "client")
        address = home.get("service", "server")["spec"]["clusterIP"]
        own = ("nsenter", f"--net=/proc/{machine.process_of(client, 'app')}/ns/net")
        plain = {"address": address, "port": 80}
        mutual = {"address": server["status"]["podIP"], "port": names.INBOUND_TLS_PORT, "identity": str(peer)}
        found = Mesh(home, plane, machine, peer, Watch(folder / "plaintext"), Watch(folder / "mutual"))
        found.wait_served(server)
        stack.enter_context(watching(own, plain, folder / "plaintext"))
        stack.enter_context(watching(cluster.enter_network, mutual, folder / "mutual"))
        yield found


@pytest.fixture(autouse=True)
def steady(mesh: Mesh) -> Iterator[None]:
    """Healthy before and after, and no request was lost in between."""
    mesh.plane.wait_healthy()
    before = len(mesh.plaintext.failures()), len(mesh.mutual.failures())
    yield
    mesh.plane.wait_healthy()
    for watch, count in zip((mesh.plaintext, mesh.mutual), before, strict=True):
        watch.wait_for_more()
        assert watch.failures()[count:] == []
    for name in ("server", "client"):
        pod = mesh.get(name)
        assert is_ready(pod), tell(pod)
        assert restarts(pod) == 0


def restarts(pod: Object) -> int:
    return sum(status["restartCount"] for status in statuses_of(pod).values())


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
    after = mesh.plane.written()
    assert {key: after.get(key) for key in before} == before
    assert f"{mesh.plane.space.name}/{names.ROOT_SECRET}" in before


# Identity Secrets.


def test_deleted_secret_is_made_again(mesh: Mesh) -> None:
    old = mesh.secret("server")
    assert old is not None
    mesh.space.kubectl("delete", "secret", old["metadata"]["name"])

    def anew() -> bool:
        found = mesh.secret("server")
        return found is not None and found["metadata"]["uid"] != old["metadata"]["uid"]

    eventually(anew, "another Secret", deadline_s=60)


@pytest.mark.parametrize(
    "patch",
    [
        {"data": {names.TLS_CERT_KEY: base64.b64encode(b"nothing").decode()}},
        {"data": {names.TLS_PRIVATE_KEY_KEY: base64.b64encode(b"nothing").decode()}},
        {"data": {names.TRUST_BUNDLE_KEY: None}},
    ],
    ids=["certificate is no certificate", "key is no key", "bundle is gone"],
)
def test_spoiled_secret_is_repaired(mesh: Mesh, patch: Object, tmp_path: Path) -> None:
    name = names.identity_secret_name("server")
    mesh.space.kubectl("patch", "secret", name, f"--patch={json.dumps(patch)}")

    def repaired() -> bool:
        found = mesh.secret("server")
        if found is None or set(found["data"]) != {"tls.crt", "tls.key", "ca.crt"}:
            return False
        folder = save_identity(found, tmp_path / "server")
        chain = folder / "tls.crt"
        argv = ["openssl", "verify", "-CAfile", str(folder / "ca.crt"), "-untrusted", str(chain), str(chain)]
        keys = [["x509", "-in", str(chain), "-noout", "-pubkey"], ["pkey", "-in", str(folder / "tls.key"), "-pubout"]]
        public = [subprocess.run(["openssl", *key], capture_output=True, check=False).stdout for key in keys]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0 and public[0] == public[1]

    eventually(repaired, "a good Secret again", deadline_s=60)
    mesh.wait_served(mesh.get("server"))


def test_foreign_secret_is_left_alone_and_told(mesh: Mesh) -> None:
    name = names.identity_secret_name("stranger")
    labels = {names.MANAGED_BY_LABEL: "somebody-else"}
    foreign = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": labels}}
    mesh.space.apply({**foreign, "stringData": {"password": "mine"}})
    before = mesh.space.get("secret", name)
    mesh.space.apply(an_account("stranger"))
    pod = mesh.start("stranger", "stranger")

    def told() -> list[str]:
        found = mesh.space.get("events", f"--field-selector=involvedObject.name={name}")["items"]
        return [event["message"] for event in found if event["reason"] == "ForeignObject"]

    assert "was not made by it" in eventually(told, "an Event about the foreign Secret")[0]
    finding = [each for each in mesh.plane.findings("identities") if each["subject"].endswith("/stranger")]
    assert [each["verdict"] for each in finding] == ["fail"]
    assert f"Secret {name} was not made by autotls" in finding[0]["message"]
    assert f"delete secret {name}" in finding[0]["hint"]
    assert mesh.space.get("secret", name) == before
    assert mesh.dial(pod, 8080)["status"] == 200
    mesh.space.kubectl("delete", "pod", "stranger", "--wait=false")
    mesh.space.kubectl("delete", "secret,serviceaccount", name, "stranger", "--ignore-not-found")


def test_full_quota_is_told_and_not_stormed_against(mesh: Mesh) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "no-secrets"}}
    with space(mesh.space.cluster, "full") as full:
        full.apply({**quota, "spec": {"hard": {"count/secrets": "0"}}})
        eventually(lambda: full.get("resourcequota", "no-secrets").get("status", {}).get("hard"), "the quota counts")
        full.kubectl("label", "namespace", full.name, f"{names.INJECT_LABEL}={names.INJECT_ENABLED}")
        refused(mesh.plane, "quota_exceeded")
        assert full.find("secret", names.identity_secret_name("default")) is None


def test_namespace_that_is_going_is_not_stormed_against(mesh: Mesh) -> None:
    """A pod that takes its time to end keeps the namespace going, while somebody removes the pod's identity."""
    with space(mesh.space.cluster, "going", labels=OPTED_IN) as going:
        pod = a_pod(going.cluster, "slow", "default")
        pod["spec"]["terminationGracePeriodSeconds"] = 600
        pod["spec"]["containers"][0] |= {"command": ["sh", "-c", "trap '' TERM; testbox-server 8080 & wait; sleep 600"]}
        going.apply(pod)
        going.wait_ready("slow")
        name = names.identity_secret_name("default")
        eventually(lambda: going.find("secret", name), "its identity")
        going.kubectl("delete", "namespace", going.name, "--wait=false")
        eventually(lambda: "deletionTimestamp" in going.get("pod", "slow")["metadata"], "the pod is told to end")
        try:
            going.kubectl("delete", "secret", name)
            refused(mesh.plane, "namespace_terminating")
        finally:
            going.kubectl("delete", "pod", "slow", "--grace-period=0", "--force", "--wait=false")


def refused(plane: Plane, reason: str) -> None:
    """The CA counts the refusal, and does not ask again and again."""

    def count() -> float:
        return plane.metric("autotls_identity_failures_total", reason=reason)

    first = eventually(count, f"a failure for {reason}")
    time.sleep(LOOKING_S)
    # A few keys of one namespace may be refused one after another, each once in five minutes.
    assert count() <= first + 2


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
    after = mesh.plane.written()
    assert {key: after.get(key) for key in before} == before
    mesh.space.kubectl("delete", "secret", names.identity_secret_name("afterwards"))
    eventually(lambda: mesh.secret("afterwards"), "its identity again", deadline_s=60)
    mesh.space.kubectl("delete", "pod", "afterwards", "--wait=false")


@contextmanager
def storage_gone(mesh: Mesh) -> Iterator[None]:
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


# The pod's own proxy, and no control plane at all.


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


def test_uninstalled_control_plane_leaves_pods_their_traffic_and_its_root(mesh: Mesh) -> None:
    before = mesh.plane.written()
    root = f"{mesh.plane.space.name}/{names.ROOT_SECRET}"
    try:
        helm(mesh.space.cluster, "uninstall", mesh.plane.space.name, "--wait", "--timeout=300s")
        registered = mesh.space.cluster.get("mutatingwebhookconfigurations")["items"]
        assert [each["metadata"]["name"] for each in registered if "autotls" in each["metadata"]["name"]] == []
        gone = mesh.start("gone", "client")
        assert not is_injected(gone)
        mesh.plaintext.wait_for_more(8)
        mesh.mutual.wait_for_more(8)
        # Its label is no obstacle: a pod that starts anew without us is a pod like any other.
        assert mesh.dial(gone, 8080)["status"] == 200
    finally:
        mesh.plane.install()
    mesh.plane.wait_healthy()
    after = mesh.plane.written()
    assert after[root] == before[root]
    identities = {key for key in before if key.startswith(f"{mesh.space.name}/")}
    assert {key: after.get(key) for key in identities} == {key: before[key] for key in identities}
    mesh.space.kubectl("delete", "pod", "gone", "--wait=false")
