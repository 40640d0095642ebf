"""Where everything lives: one cache folder, in it the programs by version and a run folder for each cluster."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cluster.errors import HostError

DEFAULT_NAME: Final = "autotls"
REPOSITORY: Final = Path(__file__).resolve().parent.parent

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?")
_SOCKET_PATH_MAX: Final = 107
"""Bytes in a unix socket's path: sizeof(sockaddr_un.sun_path) less the closing zero, unix(7)."""
_LONGEST_SOCKET: Final = "kubelet/pod-resources/kubelet.sock.0123456789"
"""The deepest socket under a run folder; the kubelet appends up to ten digits while it replaces one."""


@dataclass(frozen=True, slots=True)
class ClusterName:
    """A cluster's name: part of file names, of its network namespace and of its cgroup."""

    value: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises HostError when the text is not 1 to 24 lower-case letters, digits and inner dashes."""
        if not _NAME.fullmatch(text):
            raise HostError(
                f"{text!r} cannot be a cluster's name",
                hint="use 1 to 24 lower-case letters, digits and dashes, as in CLUSTER=mine make up",
            )
        return cls(text)

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Cache:
    """The folder for all that is downloaded, built or run; never inside the repository."""

    root: Path

    @classmethod
    def from_environment(cls) -> Self:
        """AUTOTLS_CACHE, else the XDG cache folder's `autotls` (the Makefile's rule)."""
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return cls(Path(os.environ.get("AUTOTLS_CACHE") or f"{base}/autotls").absolute())

    @property
    def programs(self) -> Path:
        return self.root / "programs"

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def clusters(self) -> Path:
        return self.root / "clusters"

    def cluster(self, name: ClusterName) -> "RunFolder":
        """Raises HostError when sockets in that folder would have longer paths than the kernel takes."""
        folder = RunFolder(name, self.clusters / name.value)
        if len(os.fsencode(folder.root / _LONGEST_SOCKET)) > _SOCKET_PATH_MAX:
            raise HostError(
                f"the folder {folder.root} has too long a path for unix sockets",
                hint="choose a shorter cache folder with AUTOTLS_CACHE=/some/short/path",
            )
        return folder


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One cluster's folder. `containerd` and `link.json` outlive `make down`; everything else is made anew."""

    name: ClusterName
    root: Path

    @property
    def netns(self) -> str:
        """Name of the node's network namespace, as `ip netns` knows it."""
        return f"autotls-{self.name}"

    @property
    def cgroup(self) -> str:
        """Cgroup of all pods; the kubelet ends what it does not know in its cgroup, so no two nodes may share one."""
        return f"autotls-{self.name}"

    @property
    def lock(self) -> Path:
        return self.root.with_suffix(".lock")

    @property
    def link(self) -> Path:
        return self.root / "link.json"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def processes(self) -> Path:
        return self.root / "processes"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's, for people and tests."""
        return self.root / "kubeconfig"

    @property
    def containerd(self) -> Path:
        """Images and layers; kept between runs so that they need not be imported again."""
        return self.root / "containerd"

    @property
    def containerd_socket(self) -> Path:
        return self.root / "containerd.sock"

    @property
    def tools(self) -> Path:
        """PATH of the node's processes."""
        return self.root / "tools"

    @property
    def bin(self) -> Path:
        """What `make -s bin` prints: the commands for people."""
        return self.root / "bin"

    @property
    def private(self) -> Path:
        """What the node sees where programs insist on fixed folders such as /var/log/pods."""
        return self.root / "private"
