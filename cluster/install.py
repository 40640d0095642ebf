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
_TIMEOUT: Final = "420s"
# Of ten seconds each.
_WINDOWS: Final = 6


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
    """Chart and sample application, everything Ready; then shows what the sample received. Raises StartError."""
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
    _traffic(folder)
    say("see it in a browser: autotls dashboard (the folder of `make -s bin` has the command)")


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
    """The summary, or everything when a check failed: to be read, no reason to call the cluster broken."""
    done = _autotls(folder, "check")
    lines = done.stdout.strip().splitlines()
    print("\n".join(lines if done.returncode else lines[-1:]), flush=True)


def _traffic(folder: RunFolder) -> None:
    """The table of the sample application, once all that a window showed was mutual TLS; at the last try as it is.

    Connections that the client opened before its proxy had its configuration are plaintext, and end within seconds.
    """
    table = ""
    for _ in range(_WINDOWS):
        table = _autotls(folder, "stat", "deployments", "--namespace=sample").stdout
        if all_mutual_tls(table, "web"):
            break
    print(f"\n{table}", flush=True)


def all_mutual_tls(table: str, name: str) -> bool:
    """Whether the last column of the row `name` of a table of `autotls stat` is all; `*` marks what it leaves out."""
    rows = (line.split() for line in table.splitlines())
    return any(row[0] == name and row[-1].rstrip("*") == "100.00%" for row in rows if row)


def _autotls(folder: RunFolder, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(folder.bin / "autotls"), *arguments],
        env={**os.environ, "KUBECONFIG": str(folder.kubeconfig)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
