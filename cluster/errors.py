"""What can go wrong with the development cluster, each error with what to do about it.

ClusterError
├── HostError      the machine cannot run a cluster (not Linux, not root, a missing program)
├── BuildError     a program or an image could not be built or downloaded
├── StartError     a part of the cluster did not come up
└── NameTakenError the name or address is used by something that is not ours
"""


class ClusterError(Exception):
    """Base: one sentence what happened, and `hint`, one sentence what to do."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class HostError(ClusterError):
    """The machine lacks something that a cluster needs."""


class BuildError(ClusterError):
    """A program or an image could not be built."""


class StartError(ClusterError):
    """A part of the cluster did not become ready in time, or ended."""


class NameTakenError(ClusterError):
    """Somebody else's cluster has this name; it is not touched."""
