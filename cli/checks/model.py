"""A check and what it finds, as values."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from cli.checks.view import View


class Verdict(StrEnum):
    """How a check, or one of its findings, comes out; shown to the user."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


_WORST_LAST = (Verdict.SKIP, Verdict.OK, Verdict.WARN, Verdict.FAIL)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check found: about what (`pod shop/web-1`), what it is, and what to do about it."""

    verdict: Verdict
    subject: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What a check says; `message` completes its description."""

    verdict: Verdict
    message: str = ""
    hint: str = ""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """`description` says what holds when all is well. After a `fatal` one fails, the others have nothing to look at."""

    id: str
    description: str
    run: Callable[[View], Awaitable[Result]]
    fatal: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """Checks under one heading."""

    title: str
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A check that was run."""

    section: str
    check: Check
    result: Result


def ok(message: str = "", findings: tuple[Finding, ...] = ()) -> Result:
    return Result(Verdict.OK, message, findings=findings)


def warn(message: str, hint: str) -> Result:
    return Result(Verdict.WARN, message, hint)


def fail(message: str, hint: str) -> Result:
    return Result(Verdict.FAIL, message, hint)


def skip(message: str, hint: str = "") -> Result:
    return Result(Verdict.SKIP, message, hint)


def of_findings(findings: list[Finding], good: str, bad: str) -> Result:
    """The worst verdict of the findings; `good` when there is none to complain about, else their number and `bad`."""
    verdict = max((each.verdict for each in findings), key=_WORST_LAST.index, default=Verdict.OK)
    if verdict in (Verdict.OK, Verdict.SKIP):
        return ok(good, tuple(findings))
    count = sum(1 for each in findings if each.verdict in (Verdict.WARN, Verdict.FAIL))
    return Result(verdict, f"{count} {bad}", findings=tuple(findings))
