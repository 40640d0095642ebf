"""Text edits that add entries to YAML mappings and sequences, and leave every other character alone. Pure.

What is added is always first (or, for `append_items`, last) in its collection, in a form that `cli.excise` can take
back exactly:

- block style: whole lines of our own
- flow style and JSON: `{` + ours + `,` + what was there
- a collection that we create inside a flow collection opens with one space: `{ "a": 1}`
- one that stands where a null stood opens with as many spaces as say how that null was written (`NULL_SPACES`)
- one that stands where an alias stood is `{<<: *alias, ours}`
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import yaml

from cli import document
from cli.errors import CliError

CREATED_SPACES: Final = 1
# How a null was written -> the spaces behind the opening bracket of what replaced it.
NULL_SPACES: Final = {"null": 2, "~": 3, "Null": 4, "NULL": 5, "": 6}
MERGE_KEY: Final = "<<"
# Text that is a string to every reader. PyYAML alone would leave `y` or `1e3` bare, which Kubernetes' reader
# (sigs.k8s.io/yaml, YAML 1.1 as Go has it) takes for a boolean and a number.
_PLAIN: Final = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*(:/?/?[A-Za-z0-9_./-]+)*")
_RESERVED: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


class SpliceError(CliError):
    """The text has a shape into which nothing can be spliced."""


@dataclass(frozen=True, slots=True, order=True)
class Edit:
    """Replace the characters from `start` to `end` by `text`."""

    start: int
    end: int
    text: str


def apply(text: str, edits: Sequence[Edit]) -> str:
    """`text` with all edits made. Raises SpliceError if two edits touch the same place.

    The same edit twice is one edit: two workloads can share a pod template by an alias.
    """
    out: list[str] = []
    previous = Edit(-1, -1, "")
    done = 0
    for edit in sorted(set(edits)):
        if edit.start < previous.end or edit.start == previous.start:
            raise SpliceError("two changes meet at the same place", hint="write out what the alias stands for")
        out += (text[done : edit.start], edit.text)
        done = edit.end
        previous = edit
    return "".join((*out, text[done:]))


def add_entries(text: str, node: yaml.MappingNode, new: Mapping[str, Any]) -> Edit:
    """`new` as the first entries of a mapping."""
    there = document.entries(node)
    if node.flow_style:
        at = text.index("{", document.start(node)) + 1
        return Edit(at, at, flow_members(new) + ("," if there else ""))
    return _block_lines(text, there[0][0], document.start(there[0][0]), dict(new))


def prepend_items(text: str, node: yaml.SequenceNode, new: Sequence[Any]) -> Edit:
    """`new` as the first items of a sequence."""
    there = document.items(node)
    if node.flow_style:
        at = text.index("[", document.start(node)) + 1
        return Edit(at, at, flow_items(new) + ("," if there else ""))
    return _block_lines(text, there[0], dash(text, there[0]), list(new))


def append_items(text: str, node: yaml.SequenceNode, new: Sequence[Any]) -> Edit:
    """`new` as the last items of a sequence that is not empty."""
    last = document.items(node)[-1]
    at = document.end(last)
    if node.flow_style:
        return Edit(at, at, "," + flow_items(new))
    first_dash = dash(text, document.items(node)[0])
    column = first_dash - document.line_start(text, first_dash)
    block = dump_block(list(new), column, document.newline(text))
    # A block scalar already ends where the next line begins.
    at = at if at == document.line_start(text, at) else document.next_line(text, at)
    if at == document.line_start(text, at):
        return Edit(at, at, block)
    if _is_block_scalar(last):
        raise SpliceError("the file ends within a block scalar", hint="end its last line with a line break")
    # The last line of the file has no line break: ours must not end in one either.
    return Edit(at, at, document.newline(text) + block[: -len(document.newline(text))])


def _is_block_scalar(node: Any) -> bool:
    """Whether the last scalar in `node` is one whose value a further line break would change."""
    while isinstance(node, yaml.CollectionNode):
        parts = cast(list[Any], cast(Any, node).value)
        last: Any = parts[-1] if parts else None
        node = cast(Any, last)[1] if isinstance(last, tuple) else last
    return isinstance(node, yaml.ScalarNode) and node.style in ("|", ">")


def replace_empty(text: str, key: yaml.Node, value: yaml.Node, new: Mapping[str, Any] | Sequence[Any]) -> Edit:
    """`new` where a null stood, written so that the null can be put back as it was."""
    begin, stop = document.start(value), document.end(value)
    spelled = text[begin:stop]
    spaces = NULL_SPACES.get(spelled)
    if spaces is None or ":" not in text[document.end(key) : begin]:
        raise SpliceError(f"cannot write into {spelled or key.value!r}", hint="remove the key, or give it a value")
    return Edit(begin, stop, ("" if spelled else " ") + flow(new, spaces=spaces))


def extend_alias(text: str, key: yaml.Node, new: Mapping[str, Any]) -> Edit:
    """`{<<: *alias, ...new}` where `*alias` stood: what the alias stands for stays as it is everywhere else."""
    begin, stop = alias_span(text, key)
    return Edit(begin, stop, "{" + f"{MERGE_KEY}: {text[begin:stop]}, {flow_members(new)}" + "}")


def is_alias(key: yaml.Node, value: yaml.Node) -> bool:
    """Whether the value is written as `*name`: composing an alias gives back the earlier node itself."""
    return document.start(value) < document.start(key)


def alias_span(text: str, key: yaml.Node) -> tuple[int, int]:
    """Where `*name` stands, the value of `key`. Raises SpliceError if it is not there."""
    begin = document.end(key)
    while begin < len(text) and text[begin] in ": \t\r\n":
        begin += 1
    stop = begin
    while stop < len(text) and text[stop] not in " \t\r\n,]}":
        stop += 1
    if text[begin : begin + 1] != "*":
        raise SpliceError("a value that is used elsewhere by an alias cannot be changed", hint="write it out")
    return begin, stop


def dash(text: str, item: yaml.Node) -> int:
    """The index of the `-` of a block sequence's item."""
    at = document.start(item)
    while True:
        line = document.line_start(text, at)
        before = text[line:at].split(" #", maxsplit=1)[0].rstrip()
        if before.endswith("-"):
            return line + len(before) - 1
        if line == 0 or before.strip():
            raise SpliceError("a list whose dashes cannot be found", hint="write one `- ` in front of each item")
        at = line - 1


def _block_lines(text: str, first: yaml.Node, at: int, new: Any) -> Edit:
    """Lines for `new` above the first entry, which stands at `at`, and above the comments that belong to it."""
    line = document.line_start(text, at)
    column = at - line
    block = dump_block(new, column, document.newline(text))
    if text[line:at].strip(" "):
        # `- kind: Pod`: the first entry shares its line with the dash of the item it is in, and so must ours.
        return Edit(at, at, block[column:] + " " * column)
    while line > 0:
        above = document.previous_line(text, line)
        content = text[above:line].strip()
        if content and not content.startswith("#"):
            break
        line = above
    return Edit(line, line, block)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that a YAML reader could take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: Any, text: str) -> yaml.ScalarNode:
    plain = _PLAIN.fullmatch(text) is not None and text.lower() not in _RESERVED
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _text)  # pyright: ignore[reportUnknownMemberType] - yaml has no types


def dump_block(value: Any, indent: int, newline: str) -> str:
    """`value` as block YAML, each line indented and ended by `newline`."""
    dumped = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=False, sort_keys=False, width=2**30, allow_unicode=True
    )
    return "".join(" " * indent + line + newline for line in dumped.splitlines())


def flow(value: Mapping[str, Any] | Sequence[Any], *, spaces: int) -> str:
    """`value` as JSON, with `spaces` behind its first bracket."""
    if isinstance(value, Mapping):
        return "{" + " " * spaces + flow_members(value) + "}"
    return "[" + " " * spaces + flow_items(value) + "]"


def flow_members(value: Mapping[str, Any]) -> str:
    """The members of a JSON object without its braces; collections among them are marked as created by us."""
    return ", ".join(f"{json.dumps(name)}: {_member(member)}" for name, member in value.items())


def flow_items(value: Sequence[Any]) -> str:
    """The items of a JSON array without its brackets."""
    return ", ".join(json.dumps(item, ensure_ascii=False) for item in value)


def _member(value: Any) -> str:
    if isinstance(value, Mapping | list | tuple) and value:
        return flow(cast(Any, value), spaces=CREATED_SPACES)
    return json.dumps(value, ensure_ascii=False)
