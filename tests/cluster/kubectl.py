"""What tests on the real cluster share: namespaces of their own, waiting with a deadline, and a pod's parts."""

import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml

from mesh import names
from tests.fixtures_cluster import RunningCluster

T = TypeVar("T")
Object = dict[str, Any]

# Far above what a busy machine needs: a deadline, not a measure.
DEADLINE_S: Final = 600.0
MANIFESTS: Final = Path(__file__).parent / "manifests"
OPTED_IN: Final = {names.INJECT_LABEL: names.INJECT_ENABLED}


def eventually(check: Callable[[], T | None], what: str | Callable[[], str], *, deadline_s: float = DEADLINE_S) -> T:
    """The first true answer of `check`. `what` completes "not within N s: "; called, it may tell the last state."""
    end = time.monotonic() + deadline_s
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s:.0f} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.5)


def run_kubectl(
    cluster: RunningCluster, *arguments: str, stdin: str | None = None
) -> "subprocess.CompletedProcess[str]":
    """kubectl as the administrator, whatever its exit code: for tests of warnings and refusals."""
    return cluster.run_kubectl(*arguments, stdin=stdin)


def run_autotls(
    cluster: RunningCluster, *arguments: str, stdin: str | None = None
) -> "subprocess.CompletedProcess[str]":
    """The command as people run it, with this cluster's helm on PATH."""
    path = f"{cluster.folder.bin}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [str(cluster.folder.bin / "autotls"), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
        env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig), "PATH": path},
    )


def inject(cluster: RunningCluster, text: str, *options: str) -> str:
    """What `autotls inject` makes of a manifest with the settings of this cluster. Fails the test when it fails."""

    def injected() -> "subprocess.CompletedProcess[str] | None":
        done = run_autotls(cluster, "inject", *options, "-", stdin=text)
        assert done.returncode == 0, done.stderr
        # The command waits two seconds for a cluster, and says so when that was too short.
        return None if "the default settings are used" in done.stderr else done

    return eventually(injected, "the settings of the cluster, within two seconds").stdout


def manifest_text(cluster: RunningCluster, name: str) -> str:
    """A file of `manifests/` with the test image's name filled in."""
    return (MANIFESTS / f"{name}.yaml").read_text().replace("@TESTBOX@", cluster.image("testbox"))


def manifest(cluster: RunningCluster, name: str) -> list[Object]:
    """The objects of that file."""
    return [each for each in yaml.safe_load_all(manifest_text(cluster, name)) if each]


@dataclass(frozen=True, slots=True)
class Space:
    """A namespace that a test has to itself."""

    cluster: RunningCluster
    name: str

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl(f"--namespace={self.name}", *arguments, stdin=stdin)

    def run(self, *arguments: str, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
        return run_kubectl(self.cluster, f"--namespace={self.name}", *arguments, stdin=stdin)

    def get(self, *arguments: str) -> Object:
        return self.cluster.get(f"--namespace={self.name}", *arguments)

    def find(self, *arguments: str) -> Object | None:
        """The object, or None."""
        found = self.kubectl("get", *arguments, "--ignore-not-found", "--output=json")
        return json.loads(found) if found.strip() else None

    def apply(self, *objects: Object) -> None:
        self.kubectl("apply", "--filename=-", stdin=as_list(objects))

    def pods(self, selector: str = "") -> list[Object]:
        """Pods that are not going away."""
        found: list[Object] = self.get("pods", f"--selector={selector}")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def exec(self, pod: str, *command: str, container: str | None = None) -> str:
        """What the command prints. Fails the test when it fails."""
        chosen = [f"--container={container}"] if container else []
        return self.kubectl("exec", pod, *chosen, "--", *command)

    def wait_ready(self, *pods: str) -> list[Object]:
        """These pods, once all are Ready."""

        def found() -> list[Object]:
            by_name = {pod["metadata"]["name"]: pod for pod in self.pods()}
            wanted = [by_name[name] for name in pods if name in by_name]
            return wanted if len(wanted) == len(pods) and all(map(is_ready, wanted)) else []

        return eventually(found, lambda: f"pods {pods} Ready: {[tell(pod) for pod in self.pods()]}")


@contextmanager
def space(cluster: RunningCluster, name: str, *, labels: dict[str, str] | None = None) -> Generator[Space]:
    """A new namespace whose default ServiceAccount exists; deleted at the end, not waited for."""
    full = f"{name}-{secrets.token_hex(3)}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": full, "labels": labels or {}}})
    made = Space(cluster, full)
    try:
        eventually(lambda: made.find("serviceaccount", "default"), f"ServiceAccount default in {full}")
        yield made
    finally:
        cluster.kubectl("delete", "namespace", full, "--wait=false", check=False)


def a_pod(cluster: RunningCluster, name: str, *, spec: Object | None = None, **metadata: Any) -> Object:
    """A pod that sleeps, its label `app` the same as its name; `metadata` and `spec` go over that."""
    container = {"name": "app", "image": cluster.image("testbox"), "command": ["sleep", "infinity"]}
    base: Object = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    labels = {"app": name} | metadata.pop("labels", {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels, **metadata},
        "spec": base | (spec or {}),
    }


def as_list(objects: Sequence[Object]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


def is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def containers_of(pod: Object) -> dict[str, Object]:
    """Every container of the spec by name."""
    return {each["name"]: each for key in ("initContainers", "containers") for each in pod["spec"].get(key) or ()}


def statuses_of(pod: Object) -> dict[str, Object]:
    """Every container's status by name."""
    found = pod.get("status", {})
    return {
        each["name"]: each for key in ("initContainerStatuses", "containerStatuses") for each in found.get(key) or ()
    }


def is_injected(pod: Object) -> bool:
    sidecar = containers_of(pod).get(names.PROXY_CONTAINER)
    return sidecar is not None and sidecar.get("restartPolicy") == "Always"


def tell(pod: Object) -> str:
    """A pod's state in one line, for the message of a failed test."""
    states = {name: status.get("state") for name, status in statuses_of(pod).items() if not status.get("ready")}
    status = pod.get("status", {})
    conditions = [each.get("message") for each in status.get("conditions") or () if each.get("message")]
    return f"{pod['metadata']['name']} {status.get('phase')} {states} {conditions}"
