"""YAML (or JSON) text as documents whose nodes know where in the text they stand. Pure.

Positions are character indexes into the text, never lines and columns: libyaml counts U+0085 and U+2028 as line
breaks, Python's splitlines counts others still.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import yaml

from cli.errors import ManifestError

if TYPE_CHECKING:
    from yaml import SafeLoader as _Base
else:
    # The C scanner is several times faster and, unlike the Python one, takes tabs in JSON.
    _Base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

BOM: Final = "\ufeff"
# Far beyond what a manifest holds, far below what a "billion laughs" of aliases asks for.
MAX_VALUES: Final = 1_000_000
_BREAK: Final = re.compile(r"\r\n|\n|\r")


class Loader(_Base):
    """Resolves scalars as Kubernetes does: a date stays text (sigs.k8s.io/yaml goes through JSON)."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Base.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a stream: its node tree, with marks, and the plain value of the same text."""

    node: yaml.MappingNode
    value: dict[str, Any]


def parse_stream(text: str, *, origin: str) -> tuple[Document, ...]:
    """The documents in `text` that are not empty; `origin` names the file in errors.

    Raises ManifestError for text that is not YAML, and for documents that are not mappings.
    """
    try:
        # Twice, because constructing a value resolves merge keys by rewriting the nodes it reads.
        nodes = list(_nodes(text))
        budget = iter(range(MAX_VALUES))
        values = [_unshared(value, budget) for value in yaml.load_all(text, Loader=Loader)]
    except yaml.YAMLError as error:
        raise _syntax_error(error, text, origin) from error
    except (ValueError, TypeError, RecursionError, StopIteration) as error:
        # Constructors raise bare ValueError for the likes of `!!int x`; deep nesting exhausts Python's stack.
        reason = "aliases that expand without end" if isinstance(error, StopIteration) else str(error)
        raise ManifestError(origin, 1, f"cannot be read: {reason}") from error
    documents: list[Document] = []
    for node, value in zip(nodes, values, strict=True):
        if value is None:
            continue
        if not isinstance(node, yaml.MappingNode):
            what = "a list" if isinstance(node, yaml.SequenceNode) else f"the text {str(cast(Any, node).value)[:40]!r}"
            reason = f"a Kubernetes object is a mapping, this is {what}"
            raise ManifestError(origin, line_of(text, start(node)), reason)
        documents.append(Document(node, value))
    return tuple(documents)


def _unshared(value: Any, budget: Iterator[int]) -> Any:
    """A copy in which nothing is shared, as JSON would have it: an alias must not carry an edit to another place.

    Raises StopIteration when the copy would exceed MAX_VALUES.
    """
    next(budget)
    if isinstance(value, dict):
        return {key: _unshared(item, budget) for key, item in cast(dict[Any, Any], value).items()}
    if isinstance(value, list):
        # Not a generator expression: it would swallow StopIteration.
        return [_unshared(item, budget) for item in cast(list[Any], value)]
    return value


def _nodes(text: str) -> Iterator[yaml.Node]:
    return cast(Iterator[yaml.Node], yaml.compose_all(text, Loader=Loader))  # pyright: ignore[reportUnknownMemberType]


def _syntax_error(error: yaml.YAMLError, text: str, origin: str) -> ManifestError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = mark.line + 1 if mark is not None else line_of(text, getattr(error, "position", 0) or 0)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).splitlines()[0]
    context = getattr(error, "context", None)
    hint = ""
    if "{{" in text:
        hint = "this looks like a template: render it first (`helm template ... | autotls inject -`)"
    return ManifestError(
        origin, line, "not YAML: " + (f"{problem} ({context})" if context else str(problem)), hint=hint
    )


def start(node: yaml.Node) -> int:
    """Where the node begins, its anchor and tag included."""
    return cast(int, cast(Any, node).start_mark.index)


def end(node: yaml.Node) -> int:
    """Where the node's own text ends.

    libyaml ends a block collection at the next token, behind comments that belong to somebody else; this is the
    end of its last scalar instead.
    """
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = cast(Any, node).value[-1]
        if isinstance(node, yaml.SequenceNode):
            return end(last)
        key, value = last
        return max(end(key), end(value))
    return cast(int, cast(Any, node).end_mark.index)


def entries(node: yaml.MappingNode) -> list[tuple[yaml.Node, yaml.Node]]:
    return cast(Any, node).value


def items(node: yaml.SequenceNode) -> list[yaml.Node]:
    return cast(Any, node).value


def find(node: yaml.Node, key: str, *, text: str, origin: str) -> tuple[yaml.Node, yaml.Node] | None:
    """The entry `key` of a mapping node, or None. Raises ManifestError if it is there twice, as kubectl does."""
    if not isinstance(node, yaml.MappingNode):
        return None
    found = [(k, v) for k, v in entries(node) if isinstance(k, yaml.ScalarNode) and k.value == key]
    if len(found) > 1:
        raise ManifestError(origin, line_of(text, start(found[1][0])), f"key {key!r} is there twice in one mapping")
    return found[0] if found else None


def is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def line_of(text: str, index: int) -> int:
    """The line number, from 1, of a character."""
    return 1 + sum(1 for _ in _BREAK.finditer(text, 0, index))


def line_start(text: str, index: int) -> int:
    """The index of the first character of the line that holds `index`."""
    return max(text.rfind("\n", 0, index), text.rfind("\r", 0, index)) + 1


def previous_line(text: str, start_of_line: int) -> int:
    """The index of the first character of the line before the one that begins at `start_of_line` (not the first)."""
    break_length = 2 if text[max(0, start_of_line - 2) : start_of_line] == "\r\n" else 1
    return line_start(text, start_of_line - break_length)


def next_line(text: str, index: int) -> int:
    """The index behind the line break that ends the line of `index`; the end of the text if there is none."""
    found = _BREAK.search(text, index)
    return found.end() if found else len(text)


def newline(text: str) -> str:
    """The line break that the text uses: that of its first line, `\\n` when it has only one."""
    found = _BREAK.search(text)
    return found.group() if found else "\n"
