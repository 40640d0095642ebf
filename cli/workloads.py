"""The pod templates in a stream of Kubernetes objects: which object is a workload, and where its template stands."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import yaml

from cli import document
from cli.document import Document
from cli.errors import ManifestError

_TEMPLATE: Final = ("spec", "template")
POD_TEMPLATE: Final[Mapping[str, tuple[str, ...]]] = {
    "Pod": (),
    "PodTemplate": ("template",),
    "ReplicationController": _TEMPLATE,
    "ReplicaSet": _TEMPLATE,
    "Deployment": _TEMPLATE,
    "StatefulSet": _TEMPLATE,
    "DaemonSet": _TEMPLATE,
    "Job": _TEMPLATE,
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}


@dataclass(frozen=True, slots=True)
class Workload:
    """An object with pods: its template as node, for editing, and as value, for deciding."""

    kind: str
    name: str
    namespace: str | None
    line: int
    template: yaml.MappingNode
    pod: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Other:
    """An object without pods, left as it is."""

    kind: str
    name: str
    line: int


def objects(documents: tuple[Document, ...], *, text: str, origin: str) -> Iterator[Workload | Other]:
    """Every object of a stream, Lists opened.

    Raises ManifestError for a document that is no Kubernetes object and for a workload without a pod spec.
    """
    for item in documents:
        yield from _object(item.node, item.value, text=text, origin=origin)


def _object(node: yaml.Node, value: Any, *, text: str, origin: str) -> Iterator[Workload | Other]:
    line = document.line_of(text, document.start(node))
    if not isinstance(value, dict):
        raise ManifestError(origin, line, "a Kubernetes object is a mapping")
    fields = cast(dict[str, Any], value)
    kind = fields.get("kind")
    if not isinstance(kind, str) or not isinstance(fields.get("apiVersion"), str):
        missing = " and ".join(name for name in ("apiVersion", "kind") if not isinstance(fields.get(name), str))
        raise ManifestError(origin, line, f"not a Kubernetes object: {missing} missing")
    if kind.endswith("List") and isinstance(fields.get("items"), list):
        found = document.find(node, "items", text=text, origin=origin)
        if found and isinstance(found[1], yaml.SequenceNode):
            for child, item in zip(document.items(found[1]), fields["items"], strict=True):
                yield from _object(child, item, text=text, origin=origin)
        return
    metadata = fields.get("metadata")
    named = cast(dict[str, Any], metadata) if isinstance(metadata, dict) else {}
    name = str(named.get("name") or f"{named.get('generateName') or '<no name>'}")
    if kind not in POD_TEMPLATE:
        yield Other(kind, name, line)
        return
    template, pod = _template(node, fields, kind, text=text, origin=origin)
    namespace = named.get("namespace")
    yield Workload(kind, name, str(namespace) if namespace else None, line, template, pod)


def _template(
    node: yaml.Node, value: dict[str, Any], kind: str, *, text: str, origin: str
) -> tuple[yaml.MappingNode, dict[str, Any]]:
    at: Any = value
    walked: list[str] = []
    for step in POD_TEMPLATE[kind]:
        walked.append(step)
        found = document.find(node, step, text=text, origin=origin)
        at = cast(dict[str, Any], at).get(step)
        if found is None or not isinstance(at, dict):
            raise _no_pod(node, kind, walked, text=text, origin=origin)
        node = found[1]
    pod = cast(dict[str, Any], at)
    containers = cast(Any, pod.get("spec") or {}).get("containers") if isinstance(pod.get("spec"), dict) else None
    if not isinstance(node, yaml.MappingNode) or not isinstance(containers, list) or not containers:
        raise _no_pod(node, kind, [*walked, "spec", "containers"], text=text, origin=origin)
    return node, pod


def _no_pod(node: yaml.Node, kind: str, path: list[str], *, text: str, origin: str) -> ManifestError:
    line = document.line_of(text, document.start(node))
    return ManifestError(origin, line, f"{kind} without {'.'.join(path)}")
