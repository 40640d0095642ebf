"""`inject` and `uninject` on text: what the webhook would add, spliced in, and the same taken out again. Pure."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, cast

import yaml

from cli import document, excise, splice
from cli.errors import ManifestError
from cli.splice import Edit, SpliceError
from cli.workloads import Other, Workload, objects
from mesh import names

_OUR_CONTAINERS: Final = frozenset({names.INIT_CONTAINER, names.PROXY_CONTAINER})
_OUR_VOLUMES: Final = frozenset({names.IDENTITY_VOLUME, names.RUN_VOLUME})
_OUR_ANNOTATIONS: Final = frozenset({names.VERSION_ANNOTATION, names.IDENTITY_ANNOTATION, names.PORTS_ANNOTATION})


class Outcome(StrEnum):
    """What became of one object; shown to the user."""

    INJECTED = "injected"
    UNINJECTED = "uninjected"
    SKIPPED = "skipped"
    NO_WORKLOAD = "no workload"


@dataclass(frozen=True, slots=True)
class Report:
    """One line on stderr for one object."""

    kind: str
    name: str
    line: int
    outcome: Outcome
    reason: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """The pod template as it should be, or None with the reason why it stays."""

    pod: Mapping[str, Any] | None
    reason: str = ""
    warnings: tuple[str, ...] = ()


def inject_text(text: str, *, origin: str, change: Callable[[Workload], Change]) -> tuple[str, tuple[Report, ...]]:
    """`text` with what `change` adds to each pod template, and nothing else different.

    Raises ManifestError if the text is no stream of Kubernetes objects, or has a shape into which nothing can be
    spliced. The result was parsed again and holds exactly the objects that were asked for.
    """
    bom, body = _without_bom(text)
    documents = document.parse_stream(body, origin=origin)
    reports: list[Report] = []
    edits: list[Edit] = []
    for item in objects(documents, text=body, origin=origin):
        if isinstance(item, Other):
            reports.append(Report(item.kind, item.name, item.line, Outcome.NO_WORKLOAD))
            continue
        changed = change(item)
        outcome = Outcome.SKIPPED if changed.pod is None else Outcome.INJECTED
        reports.append(Report(item.kind, item.name, item.line, outcome, changed.reason, changed.warnings))
        if changed.pod is not None:
            edits += _edits_of(body, item, changed.pod, origin=origin)
            item.pod.clear()
            item.pod.update(copy.deepcopy(dict(changed.pod)))
    result = _applied(body, edits, origin=origin)
    if edits:
        _verify(result, [each.value for each in documents], origin=origin)
    return bom + result, tuple(reports)


def uninject_text(text: str, *, origin: str) -> tuple[str, tuple[Report, ...]]:
    """`text` without what any version of autotls injected; byte for byte what it was before `inject_text`.

    Raises ManifestError if the text is no stream of Kubernetes objects.
    """
    bom, body = _without_bom(text)
    documents = document.parse_stream(body, origin=origin)
    reports: list[Report] = []
    edits: list[Edit] = []
    for item in objects(documents, text=body, origin=origin):
        if isinstance(item, Other):
            reports.append(Report(item.kind, item.name, item.line, Outcome.NO_WORKLOAD))
            continue
        with_line = _located(origin, item.line)
        found = with_line(lambda item=item: list(_removals(body, item.template, origin=origin)))
        edits += found
        outcome, reason = (Outcome.UNINJECTED, "") if found else (Outcome.SKIPPED, "not injected")
        reports.append(Report(item.kind, item.name, item.line, outcome, reason))
    return bom + _applied(body, edits, origin=origin), tuple(reports)


def _without_bom(text: str) -> tuple[str, str]:
    # libyaml does not count a byte order mark, which would put every position off by one.
    return (document.BOM, text[1:]) if text.startswith(document.BOM) else ("", text)


def _located(origin: str, line: int) -> Callable[[Callable[[], list[Edit]]], list[Edit]]:
    def run(make: Callable[[], list[Edit]]) -> list[Edit]:
        try:
            return make()
        except SpliceError as error:
            raise ManifestError(origin, line, error.message, hint=error.hint) from error

    return run


def _applied(text: str, edits: Sequence[Edit], *, origin: str) -> str:
    try:
        return splice.apply(text, edits)
    except SpliceError as error:
        raise ManifestError(origin, 1, error.message, hint=error.hint) from error


def _verify(result: str, wanted: list[dict[str, Any]], *, origin: str) -> None:
    """The cheap second pair of eyes: aliases and merge keys can carry an edit to a place it was not meant for."""
    got = [each.value for each in document.parse_stream(result, origin=origin)]
    for index, (have, want) in enumerate(zip(got, wanted, strict=True), start=1):
        if have != want:
            raise ManifestError(
                origin,
                1,
                f"document {index} shares text between places (an anchor, alias or merge key) that must differ",
                hint="write out what the alias stands for, then inject again",
            )


def _edits_of(text: str, workload: Workload, after: Mapping[str, Any], *, origin: str) -> list[Edit]:
    def make() -> list[Edit]:
        wanted = _additions(workload.pod, after)
        return list(_into(text, workload.template, wanted, origin=origin))

    return _located(origin, workload.line)(make)


def _additions(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What `after` has more than `before`, by the two top fields of a pod template."""
    metadata: dict[str, Any] = {
        field: _added_entries(_get(before, "metadata", field), _get(after, "metadata", field))
        for field in ("labels", "annotations")
    }
    spec = {
        field: _added_items(_get(before, "spec", field), _get(after, "spec", field))
        for field in ("initContainers", "volumes")
    }
    wanted = {"metadata": metadata, "spec": spec}
    trimmed = {top: {field: added for field, added in fields.items() if added} for top, fields in wanted.items()}
    return {top: fields for top, fields in trimmed.items() if fields}


@dataclass(frozen=True, slots=True)
class _Items:
    """Items to add to a list, in front of and behind what is there."""

    first: tuple[Any, ...]
    last: tuple[Any, ...]

    def __bool__(self) -> bool:
        return bool(self.first or self.last)


def _get(value: Mapping[str, Any], *path: str) -> Any:
    for step in path:
        value = value.get(step) or {}
    return value or None


def _added_entries(before: Mapping[str, str] | None, after: Mapping[str, str] | None) -> dict[str, str]:
    there = before or {}
    for key, value in there.items():
        if (after or {}).get(key) != value:
            raise SpliceError(f"{key}: {value!r} is there already", hint=f"remove {key} from the pod template")
    return {key: value for key, value in (after or {}).items() if key not in there}


def _added_items(before: list[Any] | None, after: list[Any] | None) -> _Items:
    there, now = before or [], after or []
    first = 0
    if there:
        while first < len(now) - len(there) and now[first] != there[0]:
            first += 1
        return _Items(tuple(now[:first]), tuple(now[first + len(there) :]))
    return _Items(tuple(now), ())


def _into(text: str, parent: yaml.MappingNode, wanted: Mapping[str, Any], *, origin: str) -> Iterator[Edit]:
    """Edits that add to the values of `parent` what `wanted` holds for their keys, or the keys themselves."""
    missing: dict[str, Any] = {}
    for key, addition in wanted.items():
        found = document.find(parent, key, text=text, origin=origin)
        plain = [*addition.first, *addition.last] if isinstance(addition, _Items) else addition
        if found is None:
            missing[key] = plain
        elif document.is_null(found[1]):
            yield splice.replace_empty(text, *found, plain)
        else:
            yield from _into_value(text, *found, addition, origin=origin)
    if missing:
        yield splice.add_entries(text, parent, missing)


def _into_value(text: str, key: yaml.Node, value: yaml.Node, addition: Any, *, origin: str) -> Iterator[Edit]:
    if isinstance(addition, _Items):
        if splice.is_alias(key, value) or not isinstance(value, yaml.SequenceNode):
            raise SpliceError(f"{cast(Any, key).value} must be written out as a list", hint="replace the alias by it")
        if not document.items(value):
            yield splice.prepend_items(text, value, [*addition.first, *addition.last])
            return
        if addition.first:
            yield splice.prepend_items(text, value, addition.first)
        if addition.last:
            yield splice.append_items(text, value, addition.last)
        return
    if not isinstance(value, yaml.MappingNode):
        raise SpliceError(f"{cast(Any, key).value} is not a mapping", hint="see `kubectl explain pod`")
    if splice.is_alias(key, value):
        yield splice.extend_alias(text, key, addition)
    elif any(isinstance(item, dict | _Items) for item in addition.values()):
        yield from _into(text, value, addition, origin=origin)
    else:
        yield splice.add_entries(text, value, addition)


def _removals(text: str, template: yaml.MappingNode, *, origin: str) -> Iterator[Edit]:
    metadata = document.find(template, "metadata", text=text, origin=origin)
    if metadata and isinstance(metadata[1], yaml.MappingNode) and not splice.is_alias(*metadata):
        result = _from_metadata(text, metadata[0], metadata[1], origin=origin)
        if isinstance(result, excise.Drop):
            result = excise.from_mapping(text, template, template, {"metadata"})
        if not isinstance(result, excise.Drop):
            yield from result
    spec = document.find(template, "spec", text=text, origin=origin)
    if spec and isinstance(spec[1], yaml.MappingNode) and not splice.is_alias(*spec):
        ours = {"initContainers": _OUR_CONTAINERS, "volumes": _OUR_VOLUMES}
        result = _from_children(text, spec[0], spec[1], ours, origin=origin)
        if not isinstance(result, excise.Drop):
            yield from result


def _from_metadata(text: str, key: yaml.Node, node: yaml.MappingNode, *, origin: str) -> excise.Outcome:
    labels = document.find(node, "labels", text=text, origin=origin)
    ours = {names.MESH_LABEL}
    if labels and isinstance(labels[1], yaml.MappingNode):
        order = [cast(Any, k).value for k, _ in document.entries(labels[1])]
        # `inject --tls` writes the mode right before the mesh label; the user's own label stands behind it.
        if names.MESH_LABEL in order and names.MODE_LABEL in order[: order.index(names.MESH_LABEL)][-1:]:
            ours.add(names.MODE_LABEL)
    return _from_children(text, key, node, {"labels": ours, "annotations": _OUR_ANNOTATIONS}, origin=origin)


def _from_children(
    text: str, key: yaml.Node, node: yaml.MappingNode, ours: Mapping[str, Any], *, origin: str
) -> excise.Outcome:
    """What takes `ours` out of the collections right below `node`, and out of `node` those that we created."""
    edits: list[Edit] = []
    dropped: set[str] = set()
    for child, found_names in ours.items():
        found = document.find(node, child, text=text, origin=origin)
        if found is None or splice.is_alias(*found):
            continue
        if isinstance(found[1], yaml.MappingNode):
            outcome = excise.from_mapping(text, found[0], found[1], found_names)
        elif isinstance(found[1], yaml.SequenceNode):
            outcome = excise.from_sequence(text, found[0], found[1], found_names)
        else:
            continue
        if isinstance(outcome, excise.Drop):
            dropped.add(child)
        else:
            edits += outcome
    rest = excise.from_mapping(text, key, node, dropped)
    return rest if isinstance(rest, excise.Drop) else (*edits, *rest)
