"""The JSON Patch (RFC 6902) that adds the sidecar; it only adds.

Operations are made by hand from what the pod has (a list, an empty one, null or none): diffing two copies of the
pod costs 400 times as much and finds the same operations.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from mesh import names
from mesh.config import MeshConfig
from mesh.pod import Pod
from mesh.settings import PodSettings
from mesh.spiffe import SpiffeId
from mesh.version import VERSION
from webhook.decision import Inject
from webhook.resources import is_guaranteed
from webhook.sidecar import init_container, proxy_container
from webhook.volumes import identity_volume, run_volume

Operation = dict[str, Any]

_ENCODER: Final = msgspec.json.Encoder()


def build_patch(pod: Pod, identity: SpiffeId, inject: Inject, config: MeshConfig) -> tuple[Operation, ...]:
    """The operations that make `pod` a member of the mesh, as plain data."""
    return tuple(msgspec.json.decode(build_encoded_patch(pod, identity, inject, config)))


def build_encoded_patch(pod: Pod, identity: SpiffeId, inject: Inject, config: MeshConfig) -> bytes:
    """The same operations as JSON: the webhook's path.

    Each part is encoded once for everything it depends on, which is never the pod itself: few distinct settings and
    ServiceAccounts exist in a cluster, so nearly every pod finds all its parts made.
    """
    meta, spec = pod.metadata, pod.spec
    parts = (
        _metadata(
            config.control_plane_namespace, identity, declared_ports(pod), meta.labels is None, meta.annotations is None
        ),
        _containers(inject.settings, config, is_guaranteed(pod), inject.redirect, spec.init_containers is None),
        _volumes(spec.service_account, spec.volumes is None),
    )
    return b"[" + b",".join(parts) + b"]"


def encode_patch(operations: Sequence[Operation]) -> bytes:
    """`operations` as JSON."""
    return _ENCODER.encode(operations)


def pointer(*parts: str | int) -> str:
    """A JSON pointer (RFC 6901) with `~` and `/` escaped."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def declared_ports(pod: Pod) -> str:
    """TCP ports that the containers of `pod` declare, as `8080,9090`: what peers may reach before discovery says more.

    A pod's own annotation of that name would be the pod's own word about itself, which its containers' ports are too.
    """
    ports = {
        port.container_port
        for container in pod.spec.all_containers
        for port in container.ports or ()
        if (port.protocol or "TCP") == "TCP" and port.container_port not in names.RESERVED_PORTS
    }
    return ",".join(map(str, sorted(ports)))


@lru_cache(maxsize=4096)
def _metadata(control_plane: str, identity: SpiffeId, ports: str, no_labels: bool, no_annotations: bool) -> bytes:
    annotations = {names.VERSION_ANNOTATION: VERSION, names.IDENTITY_ANNOTATION: str(identity)}
    if ports:
        annotations[names.PORTS_ANNOTATION] = ports
    return _encoded(
        [
            *_entries("labels", {names.MESH_LABEL: control_plane}, absent=no_labels),
            *_entries("annotations", annotations, absent=no_annotations),
        ]
    )


@lru_cache(maxsize=256)
def _containers(settings: PodSettings, config: MeshConfig, guaranteed: bool, redirect: bool, absent: bool) -> bytes:
    builders = (init_container, proxy_container) if redirect else (proxy_container,)
    added = [build(settings, config, guaranteed=guaranteed, redirect=redirect) for build in builders]
    path = pointer("spec", "initContainers")
    if absent:
        return _encoded([_add(path, added)])
    return _encoded([_add(f"{path}/{index}", container) for index, container in enumerate(added)])


@lru_cache(maxsize=4096)
def _volumes(service_account: str, absent: bool) -> bytes:
    added = [identity_volume(service_account), run_volume()]
    path = pointer("spec", "volumes")
    return _encoded([_add(path, added)] if absent else [_add(f"{path}/-", volume) for volume in added])


def _entries(field: str, added: Mapping[str, str], *, absent: bool) -> list[Operation]:
    """Absent and null both read as None, and `add` replaces null: one operation with the whole map serves both."""
    if absent:
        return [_add(pointer("metadata", field), added)]
    return [_add(pointer("metadata", field, key), value) for key, value in added.items()]


def _add(path: str, value: object) -> Operation:
    return {"op": "add", "path": path, "value": value}


def _encoded(operations: Sequence[Operation]) -> bytes:
    """Operations without the brackets around them."""
    return encode_patch(operations)[1:-1]
