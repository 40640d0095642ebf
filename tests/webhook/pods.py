"""Pods and namespaces as short as a test wants to write them."""

import json
from typing import Any

import msgspec

from mesh import names
from mesh.config import MeshConfig
from mesh.pod import Namespace, ObjectMeta, Pod
from webhook.decision import Decision, Inject, decide

CONFIG = MeshConfig()
OPTED_IN = {names.INJECT_LABEL: names.INJECT_ENABLED}


def container(name: str = "app", **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": "app:1", **fields}


def pod_object(
    *, labels: dict[str, str] | None = None, annotations: dict[str, str] | None = None, **spec: Any
) -> dict[str, Any]:
    """A pod as JSON data; spec fields as keywords."""
    metadata: dict[str, Any] = {"name": "app", "namespace": "shop"}
    if labels is not None:
        metadata["labels"] = labels
    if annotations is not None:
        metadata["annotations"] = annotations
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [container()], **spec},
    }


def as_pod(data: dict[str, Any]) -> Pod:
    return msgspec.json.decode(json.dumps(data).encode(), type=Pod)


def pod(**fields: Any) -> Pod:
    return as_pod(pod_object(**fields))


def namespace(
    name: str = "shop", *, labels: dict[str, str] | None = None, annotations: dict[str, str] | None = None
) -> Namespace:
    """An opted-in namespace with these labels beside."""
    return Namespace(metadata=ObjectMeta(name=name, labels={**OPTED_IN, **(labels or {})}, annotations=annotations))


def labelled(labels: dict[str, str] | None, name: str = "shop") -> Namespace:
    """A namespace with exactly these labels."""
    return Namespace(metadata=ObjectMeta(name=name, labels=labels))


def decision_for(space: Namespace | None = None, config: MeshConfig = CONFIG, **fields: Any) -> Decision:
    """What happens to a pod of these fields in an opted-in namespace."""
    return decide(pod(**fields), space or namespace(), config)


def inject_for(space: Namespace | None = None, config: MeshConfig = CONFIG, **fields: Any) -> Inject:
    """The same, when the test is about injected pods."""
    decision = decision_for(space, config, **fields)
    assert isinstance(decision, Inject), decision
    return decision
