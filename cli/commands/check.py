"""`autotls check`."""

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import click

from cli import output
from cli.checks import report
from cli.checks.model import Outcome, Section, Verdict
from cli.checks.runner import BEFORE_INSTALLING, INSTALLED, run_checks
from cli.checks.view import View
from cli.errors import EXIT_FAILED, EXIT_OK
from cli.installation import find_control_plane
from cli.target import Target, cluster_options
from kube.client import Api, connect
from kube.errors import ApiError
from mesh import names
from mesh.config import ConfigError, parse_duration

COLOURS: Final = {
    Verdict.OK: output.GOOD,
    Verdict.WARN: output.WARN,
    Verdict.FAIL: output.BAD,
    Verdict.SKIP: output.DIM,
}
_RETRY_S: Final = 2.0


@click.command("check")
@click.option("--pre", is_flag=True, help="Check whether autotls can be installed here.")
@click.option("-n", "--namespace", "only", metavar="NAME", help="Look at the pods of this namespace only.")
@click.option("--control-plane", metavar="NAME", help="Namespace of the control plane [found by its registration].")
@click.option(
    "-o", "--output", "form", type=click.Choice(["table", "json", "junit"]), default="table", show_default=True
)
@click.option("--wait", metavar="DURATION", help="Try again until no check fails, for at most 90s, 5m, ...")
@cluster_options
def command(  # noqa: PLR0917 - click passes options by name
    pre: bool, only: str | None, control_plane: str | None, form: str, wait: str | None, target: Target
) -> int:
    """Find out what is wrong with autotls, or what would keep it from being installed.

    Nothing is written to the cluster. Exit code 0: no check failed (warnings are not failures); 1: one did.
    """
    try:
        patience = parse_duration(wait, field="--wait") if wait else timedelta(0)
    except ConfigError as error:
        raise click.BadParameter(
            error.message + (f": {error.hint}" if error.hint else ""), param_hint="--wait"
        ) from error
    sections = BEFORE_INSTALLING if pre else INSTALLED
    outcomes = asyncio.run(_check(target, sections, control_plane, only, form, patience))
    if form == "json":
        output.result(report.as_json(outcomes))
    elif form == "junit":
        output.result(report.as_junit(outcomes))
    else:
        output.result(f"\n{report.summary(outcomes)}\n")
    return EXIT_FAILED if _failed(outcomes) else EXIT_OK


def utc_now() -> datetime:
    """The clock that certificates are judged by."""
    return datetime.now(UTC)


def _failed(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [each for each in outcomes if each.result.verdict is Verdict.FAIL]


async def _check(  # noqa: PLR0917
    target: Target,
    sections: Sequence[Section],
    control_plane: str | None,
    only: str | None,
    form: str,
    patience: timedelta,
) -> list[Outcome]:
    loop = asyncio.get_running_loop()
    until = loop.time() + patience.total_seconds()
    async with connect(kubeconfig=target.kubeconfig, context=target.context) as api:
        while True:
            last = loop.time() + _RETRY_S > until
            # Live only when this round is the only one: a round that is tried again would be shown twice.
            live = form == "table" and not patience
            outcomes = await _round(api, sections, control_plane, only, live=live)
            failed = _failed(outcomes)
            if not failed or last:
                break
            waited = f"{max(0.0, until - loop.time()):.0f} s left"
            output.report(f"waiting ({waited}): {failed[0].check.description}: {failed[0].result.message}")
            await asyncio.sleep(_RETRY_S)
    if form == "table" and not live:
        _print(outcomes)
    return outcomes


async def _round(
    api: Api, sections: Sequence[Section], control_plane: str | None, only: str | None, *, live: bool
) -> list[Outcome]:
    where = control_plane
    if where is None:
        # Without an answer here, the first check says what is wrong.
        with contextlib.suppress(ApiError):
            where = await find_control_plane(api)
    namespace = where or names.DEFAULT_CONTROL_PLANE_NAMESPACE
    view = View(api, now=utc_now(), control_plane=namespace, only=only)
    outcomes: list[Outcome] = []
    async for outcome in run_checks(sections, view):
        outcomes.append(outcome)
        if live:
            _print(outcomes[-2:], only_last=True)
    return outcomes


def _print(outcomes: Sequence[Outcome], *, only_last: bool = False) -> None:
    terminal = sys.stdout.isatty()

    def paint(verdict: Verdict, text: str) -> str:
        return output.paint(text, COLOURS[verdict], stream_is_terminal=terminal)

    title = outcomes[-2].section if only_last and len(outcomes) > 1 else None
    for outcome in outcomes[-1:] if only_last else outcomes:
        if outcome.section != title:
            output.result(("\n" if title else "") + f"{outcome.section}\n")
            title = outcome.section
        output.result("".join(f"  {line}\n" for line in report.lines(outcome, paint=paint)))
