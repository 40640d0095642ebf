"""How each program is built: pure data, and the key under which a build is cached."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster import versions
from cluster.errors import BuildError
from cluster.layout import REPOSITORY

KUBERNETES_PROGRAMS: Final = {
    "kube-apiserver": "apiserver.go",
    "kube-controller-manager": "controllermanager.go",
    "kube-proxy": "kubeproxy.go",
    "kube-scheduler": "scheduler.go",
    "kubectl": "kubectl.go",
    "kubelet": "kubelet.go",
}
_SOURCES: Final = REPOSITORY / "cluster"
_STRIPPED: Final = "-s -w"


@dataclass(frozen=True, slots=True)
class Recipe:
    """One build by Go: either a module of ours (`sources`) or released packages (`packages`), never both."""

    name: str
    version: str
    binaries: tuple[str, ...]
    sources: tuple[Path, ...] = ()
    packages: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    ldflags: str = _STRIPPED
    multicall: bool = False
    """One file, and the other binaries are links to it."""
    minutes: int = 1
    """What a cold build takes on two cores; shown to who waits."""

    @property
    def title(self) -> str:
        return f"{self.name} {self.version}"


def cache_key(recipe: Recipe, contents: Iterable[bytes]) -> str:
    """Folder name of a build: name, version and a hash of everything else that decides the result.

    The Go version is left out on purpose: a newer compiler is no reason to build for ten minutes again.
    """
    digest = hashlib.sha256()
    for part in (*recipe.binaries, *recipe.packages, *recipe.tags, recipe.ldflags):
        digest.update(part.encode() + b"\0")
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return f"{recipe.name}-{recipe.version}-{digest.hexdigest()[:10]}"


def kubernetes(version: str = versions.KUBERNETES, only: tuple[str, ...] = ()) -> Recipe:
    """All of Kubernetes in one binary, or the named programs of it. Raises BuildError for an unknown program."""
    programs = tuple(sorted(only)) or tuple(KUBERNETES_PROGRAMS)
    if unknown := [name for name in programs if name not in KUBERNETES_PROGRAMS]:
        raise BuildError(
            f"Kubernetes has no program {unknown[0]!r} here", hint=f"choose from {', '.join(KUBERNETES_PROGRAMS)}"
        )
    files = ["main.go", *(KUBERNETES_PROGRAMS[name] for name in programs)]
    if version == versions.KUBERNETES:
        # Other versions get a go.mod made from upstream's (go_mod below); this one is locked in the repository.
        files += ["go.mod", "go.sum"]
    major, minor, *_ = version.split(".")
    variables = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    stamps = (
        f"-X {package}.{variable}={value}"
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for variable, value in variables.items()
    )
    return Recipe(
        name="kubernetes",
        version=version,
        binaries=programs,
        sources=tuple(_SOURCES / "kubernetes" / file for file in files),
        ldflags=" ".join((_STRIPPED, *stamps)),
        multicall=True,
        minutes=10,
    )


def kubernetes_go_mod(version: str, upstream: str) -> str:
    """The go.mod for that version, given the text of k8s.io/kubernetes' own.

    Kubernetes requires its staging modules at v0.0.0 and replaces them by folders; replacements of a dependency do not
    count for the main module, so each must be replaced again, by the release that goes with it (1.37.2 -> v0.37.2).

    Raises BuildError when the text does not look like upstream's.
    """
    staging = re.findall(r"^\s*(\S+) => \./staging/src/", upstream, re.MULTILINE)
    go = re.search(r"^go (\S+)$", upstream, re.MULTILINE)
    cobra = re.search(r"github\.com/spf13/cobra (\S+)", upstream)
    if not staging or go is None or cobra is None:
        raise BuildError(
            f"the go.mod of Kubernetes {version} has an unexpected form", hint="use one of the versions in versions.py"
        )
    release = f"v0.{version.split('.', 1)[1]}"
    return "\n".join(
        [
            "module autotls.io/cluster/kubernetes",
            "",
            f"go {go[1]}",
            "",
            "require (",
            f"\tgithub.com/spf13/cobra {cobra[1]}",
            f"\tk8s.io/component-base {release}",
            f"\tk8s.io/kubernetes v{version}",
            ")",
            "",
            "replace (",
            *(f"\t{module} => {module} {release}" for module in staging),
            ")",
            "",
        ]
    )


def _own(name: str, version: str, *, minutes: int = 1, locked: bool = True) -> Recipe:
    """A module of ours with that name; `locked` when it has dependencies and so a go.sum."""
    files = ("main.go", "go.mod", "go.sum") if locked else ("main.go", "go.mod")
    sources = tuple(_SOURCES / name / file for file in files)
    return Recipe(name=name, version=version, binaries=(name,), sources=sources, minutes=minutes)


def node_programs() -> tuple[Recipe, ...]:
    """Everything but Kubernetes that a node needs, and helm."""
    containerd = "github.com/containerd/containerd/v2"
    cni = "github.com/containernetworking/plugins/plugins"
    helm = "helm.sh/helm/v3"
    kubernetes_minor = versions.KUBERNETES.split(".")[1]
    return (
        _own("etcd", versions.ETCD),
        Recipe(
            name="containerd",
            version=versions.CONTAINERD,
            binaries=("containerd", "containerd-shim-runc-v2", "ctr"),
            packages=tuple(
                f"{containerd}/cmd/{name}@v{versions.CONTAINERD}"
                for name in ("containerd", "containerd-shim-runc-v2", "ctr")
            ),
            # Snapshotters that need C headers or a kernel feature that a test node does not use.
            tags=("no_btrfs", "no_devmapper", "no_zfs", "no_aufs"),
            ldflags=f"{_STRIPPED} -X {containerd}/version.Version=v{versions.CONTAINERD}",
            minutes=2,
        ),
        Recipe(
            # Debian 12 ships 1.1.1, which waits for IPv6 duplicate address detection: 1-2 s for each pod start.
            name="cni-plugins",
            version=versions.CNI_PLUGINS,
            binaries=("bridge", "host-local", "loopback", "portmap"),
            packages=tuple(
                f"{cni}/{path}@v{versions.CNI_PLUGINS}"
                for path in ("main/bridge", "ipam/host-local", "main/loopback", "meta/portmap")
            ),
        ),
        _own("coredns", versions.COREDNS, minutes=2),
        _own("pause", versions.PAUSE, locked=False),
        Recipe(
            name="helm",
            version=versions.HELM,
            binaries=("helm",),
            packages=(f"{helm}/cmd/helm@v{versions.HELM}",),
            # Without the two minors helm renders and lints for Kubernetes 1.20, which the chart refuses.
            ldflags=f"{_STRIPPED} -X {helm}/internal/version.version=v{versions.HELM}"
            f" -X {helm}/pkg/chartutil.k8sVersionMinor={kubernetes_minor}"
            f" -X {helm}/pkg/lint/rules.k8sVersionMinor={kubernetes_minor}",
            minutes=2,
        ),
    )


def prometheus() -> Recipe:
    """With one service discovery, Kubernetes': Debian's has all but that one. No part of a cluster."""
    return Recipe(
        name="prometheus",
        version=versions.PROMETHEUS,
        binaries=("prometheus",),
        packages=(f"github.com/prometheus/prometheus/cmd/prometheus@v{versions.PROMETHEUS}",),
        tags=("remove_all_sd", "enable_kubernetes_sd"),
        minutes=5,
    )
