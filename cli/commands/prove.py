"""`autotls prove`."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

import click

from cli import output
from cli.checks.model import Verdict
from cli.checks.view import View
from cli.commands.check import COLOURS
from cli.errors import EXIT_FAILED, EXIT_OK
from cli.installation import find_control_plane
from cli.proof import judgement
from cli.proof.door import PodSockets
from cli.proof.facts import Goal, find_pod, read_facts
from cli.proof.judgement import Step, StepId
from cli.proof.run import prove, request_for
from cli.target import Target, cluster_options, context_namespace
from kube.client import HttpApi, connect
from mesh import names

_WIDTH: Final = max(len(step) for step in StepId)
_LONGEST: Final = 400


@click.command("prove")
@click.argument("pod", metavar="[NAMESPACE/]POD")
@click.option("--to", "to", required=True, metavar="SERVICE[.NAMESPACE][:PORT]", help="What the pod is to connect to.")
@click.option("--request", is_flag=True, help="Send `HEAD /` as well; a port declared as HTTP needs it.")
@click.option("-n", "--namespace", metavar="NAME", help="Namespace of the pod [the context's].")
@click.option("--control-plane", metavar="NAME", help="Namespace of the control plane [found by its registration].")
@click.option("-o", "--output", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@cluster_options
def command(  # noqa: PLR0917 - click passes options by name
    pod: str,
    to: str,
    request: bool,
    namespace: str | None,
    control_plane: str | None,
    form: str,
    target: Target,
) -> int:
    """Make one real connection from a pod's proxy to a Service, as the application's would go, and report each step.

    The connection is opened and closed again; nothing is sent over it but, with --request, `HEAD /`. It needs the
    right to execute commands in the pod. Exit code 0: it was mutual TLS; 1: it was not, or that is not known.

    \b
      autotls prove shop/web-5d8f7-x2x --to db.data:5432
    """
    where, _, name = pod.rpartition("/")
    where = where or namespace or context_namespace(target) or "default"
    steps = asyncio.run(_prove(target, (where, name), Goal.parse(to, where), control_plane, request, form == "table"))
    proven = bool(steps) and steps[-1].id is StepId.TLS and steps[-1].verdict is Verdict.OK
    if form == "json":
        output.result(json.dumps(_plain(steps, proven), indent=2, ensure_ascii=False) + "\n")
    else:
        output.result("\n" + ("proven: mutual TLS\n" if proven else "not proven\n"))
    return EXIT_OK if proven else EXIT_FAILED


async def _prove(  # noqa: PLR0917
    target: Target, pod: tuple[str, str], goal: Goal, control_plane: str | None, request: bool, live: bool
) -> list[Step]:
    async with connect(kubeconfig=target.kubeconfig, context=target.context) as api:
        where = control_plane or await find_control_plane(api) or names.DEFAULT_CONTROL_PLANE_NAMESPACE
        view = View(api, now=datetime.now(UTC), control_plane=where)
        steps: list[Step] = []
        async for step in _steps(view, api, pod, goal, request):
            steps.append(step)
            if live:
                _print(step)
        return steps


async def _steps(view: View, api: HttpApi, pod: tuple[str, str], goal: Goal, request: bool) -> AsyncIterator[Step]:
    found = await find_pod(view, *pod)
    first = judgement.pod_step(found, view.control_plane)
    # A goal that is not there is an error whatever the pod is.
    facts = await read_facts(view, found, goal)
    sent = request_for(facts, wanted=request)
    yield first
    if first.verdict is Verdict.OK:
        async for step in prove(PodSockets(api, *pod), facts, sent, view.now):
            yield step


def _print(step: Step) -> None:
    mark = output.paint(step.verdict.value.ljust(4), COLOURS[step.verdict], stream_is_terminal=sys.stdout.isatty())
    output.result(f"{mark} {step.id.ljust(_WIDTH)}  {output.harmless(step.message, _LONGEST)}\n")
    if step.hint and step.verdict is not Verdict.OK:
        output.result(f"{' ' * (_WIDTH + 7)}→ {step.hint}\n")


def _plain(steps: list[Step], proven: bool) -> dict[str, Any]:
    listed = [
        {"id": each.id.value, "verdict": each.verdict.value, "message": each.message, "hint": each.hint}
        for each in steps
    ]
    return {"proven": proven, "steps": listed}
