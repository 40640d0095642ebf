"""Server-side apply, as far as we use it: who owns which leaf, conflicts, removal of what is no longer applied.

A leaf is a path to a value that is no mapping. Lists are one leaf, but for lists of objects with a `name` (webhooks,
containers), which merge by it as the API's listType=map does.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

Path = tuple[str, ...]
Owners = dict[str, set[Path]]

# Identity, not fields: nobody owns them.
_UNOWNED = {("apiVersion",), ("kind",)} | {
    ("metadata", field)
    for field in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generateName")
}


class FieldConflict(Exception):
    """Leaves of other managers with another value: {manager: paths}."""

    def __init__(self, conflicts: Mapping[str, list[Path]]) -> None:
        self.conflicts = conflicts
        parts = [f'conflict with "{who}": {", ".join(map(dotted, paths))}' for who, paths in conflicts.items()]
        super().__init__(f"Apply failed with {sum(map(len, conflicts.values()))} conflict: {'; '.join(parts)}")


def dotted(path: Path) -> str:
    return "".join(part if part.startswith("[") else f".{part}" for part in path)


def leaves(value: Any, at: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every leaf below `value`, identity fields left out."""
    if at in _UNOWNED:
        return
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from leaves(below, (*at, key))
    elif _keyed(value):
        for item in value:
            yield from leaves(item, (*at, f"[{item['name']}]"))
    else:
        yield at, value


def apply(current: Mapping[str, Any], applied: Mapping[str, Any], owners: Owners, manager: str, *, force: bool) -> Any:
    """`current` with `applied` merged in; `owners` is changed to fit. Raises FieldConflict."""
    wanted = dict(leaves(applied))
    now = dict(leaves(current))
    conflicts: dict[str, list[Path]] = {}
    for other, paths in owners.items():
        clash = [path for path in paths & wanted.keys() if other != manager and now.get(path) != wanted[path]]
        if clash:
            conflicts[other] = sorted(clash)
    if conflicts and not force:
        raise FieldConflict(conflicts)
    for other, paths in conflicts.items():
        owners[other] -= set(paths)
    merged = _merge(copy.deepcopy(dict(current)), applied)
    dropped = owners.get(manager, set()) - wanted.keys()
    for path in dropped:
        if not any(path in paths for other, paths in owners.items() if other != manager):
            _remove(merged, path)
    owners[manager] = set(wanted)
    return merged


def take_over(before: Mapping[str, Any], after: Mapping[str, Any], owners: Owners, manager: str) -> None:
    """Ownership after a write that is not an apply: the writer owns what it changed, nobody what is gone."""
    old, new = dict(leaves(before)), dict(leaves(after))
    changed = {path for path, value in new.items() if path not in old or old[path] != value}
    for other in owners:
        owners[other] = (owners[other] - changed) & new.keys()
    owners.setdefault(manager, set()).update(changed)


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def _keyed(value: Any) -> bool:
    return bool(value) and isinstance(value, list) and all(isinstance(i, Mapping) and "name" in i for i in value)


def _merge(current: Any, applied: Any) -> Any:
    if isinstance(applied, Mapping) and isinstance(current, Mapping):
        return {**current, **{key: _merge(current.get(key), value) for key, value in applied.items()}}
    if _keyed(applied) and _keyed(current):
        mine = {item["name"]: item for item in applied}
        kept = [_merge(item, mine.pop(item["name"])) if item["name"] in mine else item for item in current]
        return kept + [copy.deepcopy(item) for item in mine.values()]
    return copy.deepcopy(applied)


def _remove(value: Any, path: Path) -> None:
    """Takes one leaf out, and the mappings that are empty without it."""
    head, *rest = path
    if isinstance(value, list):
        name = head[1:-1]
        item = next((item for item in value if item.get("name") == name), None)
        if item is not None and rest:
            _remove(item, tuple(rest))
            if item.keys() <= {"name"}:
                value.remove(item)
    elif head in value:
        if rest:
            _remove(value[head], tuple(rest))
        if not rest or value[head] in ({}, []):
            del value[head]
