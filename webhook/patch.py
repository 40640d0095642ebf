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
from webhook.resources import QosClass, qos_class
from webhook.sidecar import init_container, proxy_container
from webhook.volumes import identity_volume, run_volume

Operation = dict[str, Any]

_ENCODER: Final = msgspec.json.Encoder()


def build_patch(pod: Pod, identity: SpiffeId, inject: Inject, config: MeshConfig) -> tuple[Operation, ...]:
    """The operations that make `pod` a member of the mesh, as plain data."""
    return tuple(msgspec.json.decode(encode_patch(_operations(pod, identity, inject, config))))


def build_encoded_patch(pod: Pod, identity: SpiffeId, inject: Inject, config: MeshConfig) -> bytes:
    """The same operations as JSON: the webhook's path, which never decodes the containers it encoded once."""
    return encode_patch(_operations(pod, identity, inject, config))


def encode_patch(operations: Sequence[Operation]) -> bytes:
    """`operations` as JSON."""
    return _ENCODER.encode(operations)


def pointer(*parts: str | int) -> str:
    """A JSON pointer (RFC 6901) with `~` and `/` escaped."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def _operations(pod: Pod, identity: SpiffeId, inject: Inject, config: MeshConfig) -> list[Operation]:
    guaranteed = qos_class(pod) is QosClass.GUARANTEED
    meta, spec = pod.metadata, pod.spec
    return [
        *_entries("labels", meta.labels, {names.MESH_LABEL: config.control_plane_namespace}),
        *_entries(
            "annotations",
            meta.annotations,
            {names.VERSION_ANNOTATION: VERSION, names.IDENTITY_ANNOTATION: str(identity)},
        ),
        *_first(
            pointer("spec", "initContainers"),
            spec.init_containers,
            _containers(inject.settings, config, guaranteed=guaranteed, redirect=inject.redirect),
        ),
        *_last(pointer("spec", "volumes"), spec.volumes, [identity_volume(spec.service_account), run_volume()]),
    ]


@lru_cache(maxsize=256)
def _containers(
    settings: PodSettings, config: MeshConfig, *, guaranteed: bool, redirect: bool
) -> tuple[msgspec.Raw, ...]:
    """Our containers, encoded. Few distinct settings exist in a cluster, so nearly every pod finds them here."""
    builders = (init_container, proxy_container) if redirect else (proxy_container,)
    return tuple(
        msgspec.Raw(_ENCODER.encode(build(settings, config, guaranteed=guaranteed, redirect=redirect)))
        for build in builders
    )


def _entries(field: str, present: Mapping[str, str] | None, added: Mapping[str, str]) -> list[Operation]:
    """Absent and null both read as None, and `add` replaces null: one operation with the whole map serves both."""
    if present is None:
        return [_add(pointer("metadata", field), added)]
    return [_add(pointer("metadata", field, key), value) for key, value in added.items()]


def _first(path: str, present: Sequence[object] | None, added: Sequence[object]) -> list[Operation]:
    if present is None:
        return [_add(path, added)]
    return [_add(f"{path}/{index}", value) for index, value in enumerate(added)]


def _last(path: str, present: Sequence[object] | None, added: Sequence[object]) -> list[Operation]:
    if present is None:
        return [_add(path, added)]
    return [_add(f"{path}/-", value) for value in added]


def _add(path: str, value: object) -> Operation:
    return {"op": "add", "path": path, "value": value}
