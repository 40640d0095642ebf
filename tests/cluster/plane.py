"""The control plane as tests hurt it and look at it."""

import base64
import json
import os
import signal
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cluster import install
from mesh import names
from tests.cluster.kubectl import Object, Space, eventually, is_injected, run_autotls, run_kubectl, statuses_of, tell
from tests.cluster.machine import Machine
from tests.fixtures_cluster import RunningCluster

OWNED: Final = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY},{names.CONTROL_PLANE_LABEL}={install.NAMESPACE}"
Versions = dict[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Plane:
    """The installation in the running cluster."""

    cluster: RunningCluster

    @property
    def space(self) -> Space:
        return Space(self.cluster, install.NAMESPACE)

    def pods(self, component: str) -> list[Object]:
        return self.space.pods(f"app.kubernetes.io/component={component.removeprefix('autotls-')}")

    def wait_healthy(self, *deployments: str) -> None:
        """Every replica of these (of all) is available, one CA leads, and a pod that is tried gets its sidecar."""
        for name in deployments or (names.WEBHOOK, names.CA, names.DISCOVERY):
            eventually(lambda name=name: self._complete(name), lambda name=name: self._told(name))
        if not deployments or names.CA in deployments:
            self.wait_leader()
        if not deployments or names.WEBHOOK in deployments:
            eventually(self.injects, "a pod that is tried gets its sidecar")

    def crash(self, *deployments: str) -> None:
        """SIGKILL to every replica of these at once; returns when each runs anew and all are healthy.

        Waiting for health alone would not do: until the kubelet has looked, everything seems as it was.
        """
        leader = self.wait_leader()
        pods = [(pod, name.removeprefix("autotls-")) for name in deployments for pod in self.pods(name)]
        machine = Machine(self.cluster)
        for pid in [machine.process_of(pod, container) for pod, container in pods]:
            os.kill(pid, signal.SIGKILL)
        for pod, container in pods:
            eventually(lambda pod=pod, container=container: self._restarted(pod, container), f"{container} runs anew")
        if names.CA in deployments:
            # The Lease of the killed leader looks alive until it ends.
            self.wait_leader(other_than=leader)
        self.wait_healthy(*deployments)

    def _restarted(self, pod: Object, container: str) -> bool:
        before, now = (statuses_of(each)[container] for each in (pod, self.space.get("pod", pod["metadata"]["name"])))
        return now["containerID"] != before["containerID"] and "running" in now["state"]

    def wait_nothing_ends(self) -> None:
        """No namespace is on its way out, with all that the CA does then."""
        eventually(
            lambda: all(
                "deletionTimestamp" not in each["metadata"] for each in self.cluster.get("namespaces")["items"]
            ),
            "no namespace is on its way out",
        )

    def _complete(self, name: str) -> bool:
        found = self.space.get("deployment", name)
        wanted, status = found["spec"]["replicas"], found.get("status", {})
        counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")]
        return status.get("observedGeneration") == found["metadata"]["generation"] and counts == [wanted] * 3

    def _told(self, name: str) -> str:
        return f"{name} available: {[tell(pod) for pod in self.pods(name)]}"

    def injects(self) -> bool:
        labels = {names.INJECT_LABEL: names.INJECT_ENABLED}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "tried", "labels": labels},
            "spec": {"containers": [{"name": "app", "image": "autotls.invalid/never-pulled"}]},
        }
        arguments = ("create", "--dry-run=server", "--output=json", "--filename=-")
        done = run_kubectl(self.cluster, "--namespace=default", *arguments, stdin=json.dumps(pod))
        return done.returncode == 0 and is_injected(json.loads(done.stdout))

    def leader(self) -> str | None:
        """Who holds the Lease, as `<pod>_<process>`; None when it was not renewed in time."""
        spec = (self.space.find("lease", names.CA_LEASE) or {}).get("spec", {})
        if not spec.get("holderIdentity"):
            return None
        age = datetime.now(UTC) - datetime.fromisoformat(spec["renewTime"])
        return spec["holderIdentity"] if age < timedelta(seconds=spec["leaseDurationSeconds"]) else None

    def wait_leader(self, *, other_than: str | None = None) -> str:
        def found() -> str | None:
            holder = self.leader()
            return holder if holder != other_than else None

        return eventually(found, f"a leader other than {other_than}")

    def leader_pod(self) -> Object:
        name = self.wait_leader().rpartition("_")[0]
        return self.space.get("pod", name)

    def metric(self, name: str, **labels: str) -> float:
        """A metric of the leader."""
        address = self.leader_pod()["status"]["podIP"]
        return Machine(self.cluster).metric(address, names.HEALTH_PORT, name, **labels)

    def written(self) -> Versions:
        """uid and resourceVersion of every Secret that the CA owns, root and issuer among them."""
        found = self.cluster.get("secrets", "--all-namespaces", f"--selector={OWNED}")["items"]
        metas = [each["metadata"] for each in found if "deletionTimestamp" not in each["metadata"]]
        return {f"{meta['namespace']}/{meta['name']}": (meta["uid"], meta["resourceVersion"]) for meta in metas}

    def rewritten(self, before: Versions) -> set[str]:
        """The Secrets of `before` that are others now or gone; not those that go with their namespace."""
        now = self.written()
        changed = {key for key, version in before.items() if now.get(key) != version}
        living = {
            each["metadata"]["name"]
            for each in self.cluster.get("namespaces")["items"]
            if "deletionTimestamp" not in each["metadata"]
        }
        return {key for key in changed if key.partition("/")[0] in living}

    @contextmanager
    def scaled_down(self, name: str) -> Generator[None]:
        """No replica of `name` runs within the block; afterwards as many as before, and healthy."""
        replicas = self.space.get("deployment", name)["spec"]["replicas"]
        self.space.kubectl("scale", f"deployment/{name}", "--replicas=0")
        try:
            component = f"app.kubernetes.io/component={name.removeprefix('autotls-')}"
            eventually(
                lambda: not self.space.get("pods", f"--selector={component}")["items"], f"no pod of {name} is left"
            )
            yield
        finally:
            self.space.kubectl("scale", f"deployment/{name}", f"--replicas={replicas}")
            self.wait_healthy(name)

    def install(self, values: Mapping[str, Any] | None = None) -> None:
        """The chart with its defaults, the node's images and these values; returns when all is available."""
        images = json.loads((self.cluster.folder.root / "images.json").read_bytes())
        settings = [f"--set-json={key}={json.dumps(value)}" for key, value in (values or {}).items()]
        helm(
            self.cluster,
            *("upgrade", "--install", install.NAMESPACE, str(install.CHART), "--wait", "--timeout=600s"),
            *(*install.chart_values(images), *settings),
        )

    def findings(self, check: str) -> list[dict[str, str]]:
        """What `autotls check` finds under that id."""
        done = run_autotls(self.cluster, "check", "--output=json")
        assert done.returncode in (0, 1), done.stderr
        return next(each["findings"] for each in json.loads(done.stdout)["checks"] if each["id"] == check)

    def verdict(self, check: str) -> str:
        done = run_autotls(self.cluster, "check", "--output=json")
        assert done.returncode in (0, 1), done.stderr
        return next(each["verdict"] for each in json.loads(done.stdout)["checks"] if each["id"] == check)


def helm(cluster: RunningCluster, *arguments: str) -> str:
    argv = [str(cluster.folder.tools / "helm"), f"--kubeconfig={cluster.kubeconfig}"]
    argv += [f"--namespace={install.NAMESPACE}", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout


def save_identity(secret: Object, folder: Path) -> Path:
    """The files of an identity Secret, for a peer outside of the cluster."""
    folder.mkdir(parents=True, exist_ok=True)
    for key, value in secret["data"].items():
        (folder / key).write_bytes(base64.b64decode(value))
    return folder


def a_pod(cluster: RunningCluster, name: str, account: str, **metadata: Any) -> Object:
    """A pod whose only container listens on 8080, without an opinion about injection."""
    app = {
        "name": "app",
        "image": cluster.image("testbox"),
        "command": ["testbox-server", "8080"],
        "ports": [{"containerPort": 8080}],
        # Ready once is ready: a machine that stands still for seconds must not look like a fault.
        "readinessProbe": {
            "httpGet": {"path": "/", "port": 8080},
            "periodSeconds": 1,
            "timeoutSeconds": 10,
            "failureThreshold": 100,
        },
        "resources": {"requests": {"cpu": "1m", "memory": "16Mi"}},
    }
    spec = {"serviceAccountName": account, "terminationGracePeriodSeconds": 1, "containers": [app]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}, "spec": spec}


def an_account(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
