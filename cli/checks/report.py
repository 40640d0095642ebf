"""Outcomes of checks as lines for people, as JSON and as JUnit XML. Pure."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final
from xml.etree import ElementTree

from cli.checks.model import Outcome, Verdict

Paint = Callable[[Verdict, str], str]
_WIDTH: Final = 5
# More of the same says nothing new, and hides what comes after.
MAX_FINDINGS: Final = 20


def lines(outcome: Outcome, *, paint: Paint) -> Iterator[str]:
    """An outcome as the table shows it: verdict and description, then one line for each finding and hint."""
    result = outcome.result
    told = f": {result.message}" if result.message else ""
    yield f"{_mark(result.verdict, paint)} {outcome.check.description}{told}"
    if result.hint:
        yield f"{' ' * _WIDTH}   → {result.hint}"
    for finding in result.findings[:MAX_FINDINGS]:
        yield f"{' ' * _WIDTH}   {_mark(finding.verdict, paint)} {finding.subject}: {finding.message}"
        if finding.hint:
            yield f"{' ' * _WIDTH}        → {finding.hint}"
    if len(result.findings) > MAX_FINDINGS:
        yield f"{' ' * _WIDTH}   and {len(result.findings) - MAX_FINDINGS} more (-o json lists all)"


def _mark(verdict: Verdict, paint: Paint) -> str:
    return paint(verdict, verdict.value.ljust(_WIDTH - 1))


def summary(outcomes: Sequence[Outcome]) -> str:
    """`12 ok, 1 warn, 0 fail, 2 skip`."""
    counts = Counter(each.result.verdict for each in outcomes)
    return ", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict)


def as_json(outcomes: Sequence[Outcome]) -> str:
    """Everything, for programs."""
    counts = Counter(each.result.verdict for each in outcomes)
    value = {
        "summary": {verdict.value: counts[verdict] for verdict in Verdict},
        "checks": [_plain(outcome) for outcome in outcomes],
    }
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _plain(outcome: Outcome) -> dict[str, Any]:
    result = outcome.result
    return {
        "id": outcome.check.id,
        "section": outcome.section,
        "description": outcome.check.description,
        "verdict": result.verdict.value,
        "message": result.message,
        "hint": result.hint,
        "findings": [
            {"verdict": each.verdict.value, "subject": each.subject, "message": each.message, "hint": each.hint}
            for each in result.findings
        ],
    }


def as_junit(outcomes: Sequence[Outcome]) -> str:
    """JUnit XML: a section is a suite, a check a case; warnings are written to the case's output."""
    root = ElementTree.Element("testsuites", name="autotls check")
    for title in dict.fromkeys(each.section for each in outcomes):
        of_section = [each for each in outcomes if each.section == title]
        counts = Counter(each.result.verdict for each in of_section)
        numbers = {"tests": len(of_section), "failures": counts[Verdict.FAIL], "skipped": counts[Verdict.SKIP]}
        attributes = {"name": title} | {key: str(number) for key, number in numbers.items()}
        suite = ElementTree.SubElement(root, "testsuite", attributes)
        for each in of_section:
            case = ElementTree.SubElement(suite, "testcase", classname=title, name=each.check.id)
            text = "\n".join(lines(each, paint=lambda _, text: text))
            if each.result.verdict in (Verdict.FAIL, Verdict.SKIP):
                tag = "failure" if each.result.verdict is Verdict.FAIL else "skipped"
                ElementTree.SubElement(case, tag, message=each.result.message).text = _printable(text)
            elif each.result.verdict is Verdict.WARN:
                ElementTree.SubElement(case, "system-out").text = _printable(text)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _printable(text: str) -> str:
    """Without the control characters that XML 1.0 cannot hold."""
    return "".join(char for char in text if char >= " " or char in "\n\t")
