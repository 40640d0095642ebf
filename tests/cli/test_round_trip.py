"""uninject(inject(text)) == text for manifests in every style that can be thought of (hypothesis)."""

from dataclasses import dataclass, field

from hypothesis import event, given, settings
from hypothesis import strategies as st

from cli.changes import webhook_change
from cli.errors import ManifestError
from cli.injection import Outcome, inject_text, uninject_text
from mesh.config import MeshConfig
from tests.cli.test_injection import load, with_webhook_patch

CONFIG = MeshConfig()

ABSENT = None
NULLS = ("", "null", "~", "Null", "NULL")
KINDS = {
    "Pod": 0,
    "Deployment": 2,
    "StatefulSet": 2,
    "DaemonSet": 2,
    "ReplicaSet": 2,
    "Job": 2,
    "CronJob": 4,
}
NAMES = {0: (), 2: ("spec", "template"), 4: ("spec", "jobTemplate", "spec", "template")}


@dataclass
class Style:
    """Draws how each thing is written."""

    draw: st.DrawFn
    newline: str = "\n"
    lines: list[str] = field(default_factory=list)

    def chance(self) -> bool:
        return self.draw(st.booleans())

    def pick(self, *values: str) -> str:
        return self.draw(st.sampled_from(values))

    def line(self, indent: int, text: str) -> None:
        comment = self.pick("", "", "", " # c", "   #\ttab", " # { ] é \U0001f600")
        self.lines.append(" " * indent + text + comment)
        if self.draw(st.integers(0, 5)) == 0:
            self.lines.append(
                self.pick("", "# at the margin", " " * indent + "# - name: x", " " * (indent + 3) + "# deep", "   ")
            )

    def scalar(self, text: str) -> str:
        return self.pick(text, f'"{text}"', f"'{text}'")


def mapping(style: Style, indent: int, key: str, entries: dict[str, str]) -> None:
    """A mapping of scalars that is null, empty, flow or block."""
    how = style.pick("null", "empty", "flow", "block", "spread")
    if how == "null":
        style.line(
            indent, f"{key}: {style.pick(*NULLS)}".rstrip() if style.chance() else f"{key}: {style.pick(*NULLS)}"
        )
    elif how == "empty":
        style.line(indent, f"{key}: {style.pick('{}', '{ }', '{   }')}")
    elif how == "flow":
        inner = ", ".join(f"{style.scalar(k)}: {style.scalar(v)}" for k, v in entries.items())
        style.line(indent, f"{key}: {style.pick('{', '{ ', '{  ')}{inner}{style.pick('', ',', ' ', ', ')}}}")
    elif how == "spread":
        style.line(indent, f"{key}: {{")
        for k, v in entries.items():
            style.line(indent + 1, f"{style.scalar(k)}: {style.scalar(v)},")
        style.line(indent, style.pick(" }", "}"))
    else:
        style.line(indent, f"{key}:")
        deeper = indent + style.draw(st.integers(1, 4))
        for k, v in entries.items():
            style.line(deeper, f"{style.scalar(k)}: {style.scalar(v)}")


def sequence(style: Style, indent: int, key: str, name: str, *, required: bool = False) -> None:
    """A list of named things that is null, empty, flow or block at either indent."""
    how = style.pick("flow", "block", *(() if required else ("null", "empty")))
    if how == "null":
        style.line(indent, f"{key}: {style.pick(*NULLS)}")
    elif how == "empty":
        style.line(indent, f"{key}: {style.pick('[]', '[ ]')}")
    elif how == "flow":
        style.line(indent, f"{key}: [{style.pick('', ' ')}{{name: {name}, x: [1, 2]}}{style.pick('', ',', ' ')}]")
    else:
        style.line(indent, f"{key}:")
        at = indent + style.draw(st.integers(0, 3))
        dash = "-" + " " * style.draw(st.integers(1, 3))
        for number in range(style.draw(st.integers(1, 2))):
            style.line(at, f"{dash}name: {style.scalar(f'{name}{number}')}")
            extra = style.draw(st.integers(0, 3))
            if extra == 1:
                style.line(at + len(dash), "x: {a: b}")
            elif extra == 2:
                style.lines += [
                    " " * (at + len(dash)) + "x: " + style.pick("|", ">-", "|+"),
                    " " * (at + len(dash) + 2) + "text",
                ]
            elif extra == 3:
                style.line(at + len(dash), "x:")
                style.line(at + len(dash), "- 1")


def pod_template(style: Style, indent: int, *, named: bool) -> None:
    labels, annotations = {"app": "web", "tier": "back"}, {"note": "some", "x/y": "z"}
    parts = style.draw(st.permutations(["metadata", "spec"]))
    for part in parts:
        if part == "metadata":
            _metadata(style, indent, labels, annotations, named=named)
        else:
            _spec(style, indent)


def _metadata(style: Style, indent: int, labels: dict[str, str], annotations: dict[str, str], *, named: bool) -> None:
    fields = [name for name in ("labels", "annotations") if style.chance()]
    if not fields and not named:
        how = style.pick("absent", "null", "empty")
        if how != "absent":
            style.line(indent, f"metadata: {style.pick(*NULLS) if how == 'null' else '{}'}")
        return
    style.line(indent, "metadata:")
    deeper = indent + style.draw(st.integers(1, 4))
    if named:
        style.line(deeper, "name: web")
    for name in style.draw(st.permutations(fields)):
        mapping(style, deeper, name, labels if name == "labels" else annotations)


def _spec(style: Style, indent: int) -> None:
    style.line(indent, "spec:")
    deeper = indent + style.draw(st.integers(1, 4))
    fields = ["containers", *(name for name in ("initContainers", "volumes") if style.chance())]
    for name in style.draw(st.permutations(fields)):
        sequence(style, deeper, name, name[:3].lower(), required=name == "containers")


@st.composite
def manifests(draw: st.DrawFn) -> str:
    style = Style(draw)
    for number in range(draw(st.integers(1, 2))):
        if number:
            style.lines.append(style.pick("---", "--- # next", "---\n---"))
        kind = draw(st.sampled_from(sorted(KINDS)))
        in_list = style.chance()
        base = 0
        if in_list:
            style.lines += ["kind: List", "apiVersion: v1", "items:"]
            base = 2
        start = len(style.lines)
        style.line(base, f"kind: {kind}")
        style.line(base, "apiVersion: v1")
        indent = base
        if kind == "Pod":
            pod_template(style, base, named=style.chance())
        else:
            for step in NAMES[KINDS[kind]]:
                style.line(indent, f"{step}:")
                indent += draw(st.integers(1, 3))
            pod_template(style, indent, named=False)
        if in_list:
            style.lines[start] = "- " + style.lines[start][2:]
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    text = "\n".join(style.lines) + draw(st.sampled_from(["\n", "", "\n\n", "\n# end", "\n...\n"]))
    return draw(st.sampled_from(["", "\ufeff"])) + text.replace("\n", newline)


@settings(max_examples=300, deadline=None)
@given(manifests(), st.sampled_from([None, "optional", "strict"]))
def test_uninject_takes_back_exactly_what_inject_added(text: str, mode: str | None) -> None:
    change = webhook_change(CONFIG, {}, default_namespace="default", mode=mode, origin="test")  # type: ignore[arg-type]
    try:
        injected, reports = inject_text(text, origin="test", change=change)
    except ManifestError as error:
        # A block scalar's value depends on whether a line break follows it.
        assert "within a block scalar" in error.message
        assert not text.endswith("\n")
        event("ends within a block scalar")
        return
    assert {report.outcome for report in reports} == {Outcome.INJECTED}
    event("newlines: " + ("CRLF" if "\r" in text else "LF"))
    if mode is None:
        assert load(injected) == with_webhook_patch(load(text))
    assert inject_text(injected, origin="test", change=change)[0] == injected
    assert uninject_text(injected, origin="test")[0] == text
