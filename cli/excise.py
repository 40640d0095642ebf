"""Text edits that take entries out of YAML mappings and sequences: the inverse of `cli.splice`. Pure.

Text that was reformatted since (by kubectl, by jq) has lost the forms that `cli.splice` writes; then the entries
still go, and only the white space around them is a matter of taste.
"""

import re
from collections.abc import Set
from dataclasses import dataclass
from typing import Final

import yaml

from cli import document
from cli.splice import CREATED_SPACES, MERGE_KEY, NULL_SPACES, Edit, alias_span, dash, is_alias

_NULL_SPELLINGS: Final = {spaces: spelled for spelled, spaces in NULL_SPACES.items()}
_EXTENDED_ALIAS: Final = re.compile(r"\{<<: (\*[^\s,\[\]{}]+), ")


@dataclass(frozen=True, slots=True)
class Drop:
    """Nothing is left that was not ours, and we made the collection: its key goes as well."""


Outcome = Drop | tuple[Edit, ...]


def from_mapping(text: str, key: yaml.Node, node: yaml.MappingNode, names: Set[str]) -> Outcome:
    """What takes the entries `names` out of the mapping that is the value of `key`."""
    there = document.entries(node)
    ours = [index for index, (k, _) in enumerate(there) if isinstance(k, yaml.ScalarNode) and k.value in names]
    if not ours:
        return ()
    alias = _EXTENDED_ALIAS.match(text, document.start(node))
    merged = [k for index, (k, _) in enumerate(there) if index not in ours]
    if alias and len(merged) == 1 and isinstance(merged[0], yaml.ScalarNode) and merged[0].value == MERGE_KEY:
        return (Edit(document.start(node), document.end(node), alias.group(1)),)
    if len(ours) == len(there):
        return _emptied(text, key, node, document.start(there[0][0]), _entry_end(text, *there[-1]))
    spans = [(document.start(k), _entry_end(text, k, v)) for k, v in there]
    return _without(text, node, spans, ours, starts=[first for first, _ in spans])


def from_sequence(text: str, key: yaml.Node, node: yaml.SequenceNode, names: Set[str]) -> Outcome:
    """What takes the items whose `name` is one of `names` out of the sequence that is the value of `key`."""
    there = document.items(node)
    ours = [index for index, item in enumerate(there) if _name_of(item) in names]
    if not ours:
        return ()
    spans = [(document.start(item), document.end(item)) for item in there]
    if len(ours) == len(there):
        return _emptied(text, key, node, spans[0][0], spans[-1][1])
    starts = [first for first, _ in spans] if node.flow_style else [dash(text, item) for item in there]
    return _without(text, node, spans, ours, starts=starts)


def _name_of(item: yaml.Node) -> str | None:
    if isinstance(item, yaml.MappingNode):
        for key, value in document.entries(item):
            if isinstance(key, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode) and key.value == "name":
                return value.value
    return None


def _entry_end(text: str, key: yaml.Node, value: yaml.Node) -> int:
    if is_alias(key, value):
        return alias_span(text, key)[1]
    return max(document.end(key), document.end(value))


def _emptied(text: str, key: yaml.Node, node: yaml.CollectionNode, first: int, last: int) -> Outcome:
    """A collection that held nothing but ours: empty before, a null before, or not there before."""
    if not node.flow_style:
        return Drop()
    begin = document.start(node)
    opening = text.index("{" if isinstance(node, yaml.MappingNode) else "[", begin)
    between = text[opening + 1 : first]
    if not between:
        return (Edit(first, last, ""),)
    spelled = _NULL_SPELLINGS.get(len(between)) if not between.strip(" ") else None
    if spelled is None or len(between) == CREATED_SPACES:
        return Drop()
    # An empty null has no space of its own between the colon and what replaced it.
    return (Edit(begin - (0 if spelled else 1), document.end(node), spelled),)


def _without(
    text: str, node: yaml.CollectionNode, spans: list[tuple[int, int]], ours: list[int], *, starts: list[int]
) -> tuple[Edit, ...]:
    """Edits that remove some, not all, of the elements that `spans` tell; `starts` has their dashes or keys."""
    remove = _in_flow if node.flow_style else _in_block
    return tuple(remove(text, spans, starts, first, last) for first, last in _runs(ours))


def _runs(indexes: list[int]) -> list[tuple[int, int]]:
    """Neighbouring indexes as (first, last)."""
    runs: list[tuple[int, int]] = []
    for index in indexes:
        if runs and runs[-1][1] == index - 1:
            runs[-1] = (runs[-1][0], index)
        else:
            runs.append((index, index))
    return runs


def _in_flow(text: str, spans: list[tuple[int, int]], starts: list[int], first: int, last: int) -> Edit:
    if first > 0:
        return Edit(spans[first - 1][1], spans[last][1], "")
    begin, stop = spans[0][0], spans[last][1]
    if text[begin - 1] in "{[" and text[stop] == ",":
        # As `cli.splice` writes it: what stood behind the bracket now stands behind our comma.
        return Edit(begin, stop + 1, "")
    return Edit(begin, spans[last + 1][0], "")


def _in_block(text: str, spans: list[tuple[int, int]], starts: list[int], first: int, last: int) -> Edit:
    begin, stop = starts[first], spans[last][1]
    line = document.line_start(text, begin)
    if text[line:begin].strip(" "):
        # `- ours: x`: the next entry moves up behind the dash.
        return Edit(begin, starts[last + 1], "")
    if stop != document.line_start(text, stop):
        stop = document.next_line(text, stop)
    if stop == len(text) and stop != document.line_start(text, stop) and line > 0:
        # The file ends without a line break, and did so before ours were added behind its last line.
        line -= 2 if text[line - 2 : line] == "\r\n" else 1
    return Edit(line, stop, "")
