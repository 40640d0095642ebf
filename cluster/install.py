"""Our own software on a running cluster: images, the chart by helm, and the sample application."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from cluster import load
from cluster.addons import Kubectl
from cluster.errors import StartError
from cluster.layout import REPOSITORY, RunFolder
from cluster.progress import say

NAMESPACE: Final = "autotls"
CHART: Final = REPOSITORY / "charts" / "autotls"
_SAMPLE: Final = Path(__file__).parent / "sample" / "sample.yaml"
_TIMEOUT: Final = "180s"


class Image(Protocol):
    """What the image builder hands over (this package does not import the builder: `images` imports us)."""

    @property
    def name(self) -> str: ...
    @property
    def reference(self) -> str: ...
    @property
    def archive(self) -> Path: ...


def import_images(folder: RunFolder, images: Sequence[Image]) -> dict[str, str]:
    """Image name -> reference on the node, also written to `images.json` for tests. Raises ClusterError."""
    references: dict[str, str] = {}
    for image in images:
        # The second name stays the same, for manifests that people write by hand.
        load.load(folder, image.archive, names=[image.reference, f"{image.reference.rpartition(':')[0]}:dev"])
        references[image.name] = image.reference
    aside = folder.root / "images.json.new"
    aside.write_text(json.dumps(references, indent=1) + "\n")
    aside.rename(folder.root / "images.json")
    return references


def install(folder: RunFolder, references: Mapping[str, str]) -> None:
    """Chart and sample application, everything Ready; then says what `autotls check` says. Raises StartError."""
    kubectl = Kubectl(folder.tools / "kubectl", folder.kubeconfig)
    _namespace(kubectl)
    say("installing the chart")
    helm_install(folder, references)
    say("deploying the sample application")
    manifest = _SAMPLE.read_text().replace("@TESTBOX@", references["testbox"])
    kubectl.run("apply", "--filename=-", stdin=manifest)
    for name in ("web", "client"):
        kubectl.run("rollout", "status", f"deployment/{name}", "--namespace=sample", f"--timeout={_TIMEOUT}")
    _check(folder)


def chart_values(references: Mapping[str, str]) -> list[str]:
    """`--set` arguments that make the chart use the images on the node."""
    values: list[str] = []
    for key, name in (("controlPlane", "control-plane"), ("proxy", "proxy")):
        repository, _, tag = references[name].rpartition(":")
        values += [f"--set=image.{key}.repository={repository}", f"--set-string=image.{key}.tag={tag}"]
    return values


def helm_install(folder: RunFolder, references: Mapping[str, str]) -> None:
    """`helm upgrade --install`, waiting until everything is Ready. Raises StartError."""
    command = [
        *(str(folder.tools / "helm"), "upgrade", "--install", "autotls", str(CHART)),
        *(f"--kubeconfig={folder.kubeconfig}", f"--namespace={NAMESPACE}", "--wait", f"--timeout={_TIMEOUT}"),
        *chart_values(references),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StartError(
            f"helm could not install the chart: {done.stderr.strip()}",
            hint=f"look at the pods: kubectl get pods -n {NAMESPACE}; the cluster itself runs",
        )


def _namespace(kubectl: Kubectl) -> None:
    """helm makes namespaces without labels; ours runs under the strictest PodSecurity level there is."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    kubectl.run("apply", "--filename=-", stdin=json.dumps(namespace))


def _check(folder: RunFolder) -> None:
    command = [str(folder.bin / "autotls"), "check"]
    done = subprocess.run(
        command,
        env={**os.environ, "KUBECONFIG": str(folder.kubeconfig)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    # A finding is something to read, not a reason to call the cluster broken.
    print(done.stdout, end="", flush=True)
