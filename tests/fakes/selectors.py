"""Label and field selectors, as the API server reads them."""

import re
from collections.abc import Callable, Mapping
from typing import Any

Predicate = Callable[[Mapping[str, Any]], bool]

_SET = re.compile(r"^(?P<key>[^\s!=,()]+)\s+(?P<op>in|notin)\s+\((?P<values>[^)]*)\)$")
_EQUAL = re.compile(r"^(?P<key>[^\s!=,()]+)\s*(?P<op>==|=|!=)\s*(?P<value>[^\s!=,()]*)$")
_EXISTS = re.compile(r"^(?P<op>!?)\s*(?P<key>[^\s!=,()]+)$")


def matcher(label_selector: str, field_selector: str) -> Predicate:
    """One predicate for both selectors. Raises ValueError on text that is no selector."""
    labels = [_requirement(part) for part in _split(label_selector)]
    fields = [_requirement(part) for part in _split(field_selector)]

    def matches(obj: Mapping[str, Any]) -> bool:
        own = obj.get("metadata", {}).get("labels") or {}
        return all(test(own.get(key)) for key, test in labels) and all(test(_field(obj, key)) for key, test in fields)

    return matches


def _split(selector: str) -> list[str]:
    """At commas outside of parentheses."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", selector) if part.strip()]


def _requirement(text: str) -> tuple[str, Callable[[str | None], bool]]:
    if found := _SET.match(text):
        values = {value.strip() for value in found["values"].split(",")}
        if found["op"] == "in":
            return found["key"], lambda value: value in values
        return found["key"], lambda value: value not in values
    if found := _EQUAL.match(text):
        wanted = found["value"]
        if found["op"] == "!=":
            return found["key"], lambda value: value != wanted
        return found["key"], lambda value: value == wanted
    if found := _EXISTS.match(text):
        absent = found["op"] == "!"
        return found["key"], lambda value: (value is None) == absent
    raise ValueError(f"not a selector: {text!r}")


def _field(obj: Mapping[str, Any], path: str) -> str:
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return "" if value is None else str(value)
