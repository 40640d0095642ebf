"""What a bare cluster needs to be useful: its own images and CoreDNS."""

import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cluster import binaries, load, network, oci, recipes
from cluster.controlplane import ControlPlane
from cluster.errors import StartError
from cluster.layout import Cache, RunFolder

_MANIFEST: Final = Path(__file__).parent / "coredns.yaml"
_TIMEOUT_S: Final = 300


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl as the administrator of one cluster."""

    binary: Path
    kubeconfig: Path

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Its standard output. Raises StartError when it fails."""
        done = self._run(arguments, stdin)
        if done.returncode:
            raise StartError(
                f"`kubectl {' '.join(arguments[:3])}` failed: {done.stderr.strip()}",
                hint="look at the cluster with the kubectl of `make -s bin`",
            )
        return done.stdout

    def succeeds(self, *arguments: str) -> bool:
        return self._run(arguments, None).returncode == 0

    def node_is_ready(self, name: str) -> bool:
        done = self._run(("get", "node", name, "--output=json"), None)
        if done.returncode:
            return False
        status: dict[str, Any] = json.loads(done.stdout)["status"]
        return any(item["type"] == "Ready" and item["status"] == "True" for item in status.get("conditions", []))

    def _run(self, arguments: tuple[str, ...], stdin: str | None) -> subprocess.CompletedProcess[str]:
        argv = [str(self.binary), f"--kubeconfig={self.kubeconfig}", *arguments]
        return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)


def import_images(cache: Cache, folder: RunFolder) -> None:
    """The sandbox and DNS images, made around the static programs that were built here."""
    for name, image in (("pause", oci.PAUSE_IMAGE), ("coredns", oci.COREDNS_IMAGE)):
        recipe = next(recipe for recipe in recipes.node_programs() if recipe.name == name)
        program = binaries.ensure(cache, recipe) / name
        archive = folder.root / f"{name}.tar"
        oci.write_program_image(archive, name=image, program=program, architecture=_architecture())
        load.load(folder, archive)
        archive.unlink()


def install(plane: ControlPlane, kubectl_binary: Path) -> None:
    """CoreDNS, answering; and the default ServiceAccount, without which no pod can be made. Raises StartError."""
    kubectl = Kubectl(kubectl_binary, plane.admin_kubeconfig)
    manifest = _MANIFEST.read_text().replace("@IMAGE@", oci.COREDNS_IMAGE).replace("@ADDRESS@", network.DNS)
    kubectl.run("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=manifest)
    kubectl.run("rollout", "status", "deployment/coredns", "--namespace=kube-system", f"--timeout={_TIMEOUT_S}s")
    deadline = time.monotonic() + _TIMEOUT_S
    while not kubectl.succeeds("get", "serviceaccount", "default", "--namespace=default"):
        if time.monotonic() > deadline:
            raise StartError(
                "the controller manager made no default ServiceAccount", hint="read its log in the run folder"
            )
        time.sleep(0.1)


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
