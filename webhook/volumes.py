"""The two volumes of the sidecar: the pod's identity, and a place for its socket."""

from typing import Any, Final

from mesh import names

_READABLE: Final = 0o444
_RUN_SIZE: Final = "8Mi"


def identity_volume(service_account: str) -> dict[str, Any]:
    """The identity of `service_account`, all three files in one projected volume.

    Projected, because then certificate, key and bundle change in one atomic swap. Optional, because without the
    Secret the pod must start all the same: traffic is plaintext until the files appear. World-readable, because
    the kubelet writes as root, the proxy runs as its own uid, and no other container mounts it.
    """
    return {
        "name": names.IDENTITY_VOLUME,
        "projected": {
            "defaultMode": _READABLE,
            "sources": [{"secret": {"name": names.identity_secret_name(service_account), "optional": True}}],
        },
    }


def run_volume() -> dict[str, Any]:
    """A small tmpfs: the root filesystem is read-only, and the admin socket must not reach a disk."""
    return {"name": names.RUN_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": _RUN_SIZE}}


def proxy_mounts() -> list[dict[str, Any]]:
    """Where the proxy sees them."""
    return [
        {"name": names.IDENTITY_VOLUME, "mountPath": names.IDENTITY_MOUNT, "readOnly": True},
        {"name": names.RUN_VOLUME, "mountPath": names.RUN_MOUNT},
    ]
