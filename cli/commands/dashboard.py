"""`autotls dashboard`."""

import asyncio
import secrets
import signal
import webbrowser
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import click
from aiohttp import web

from cli import output
from cli.checks.model import Outcome
from cli.checks.runner import INSTALLED, run_checks
from cli.checks.view import View
from cli.commands.check import utc_now
from cli.errors import CliError
from cli.front import Front
from cli.installation import find_control_plane
from cli.pages_pod import PagesPod
from cli.tap_events import events
from cli.target import Target, cluster_options
from dashboard.model import Checked, Found
from kube.client import HttpApi, connect


@click.command("dashboard")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port on this machine [any free one].")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@click.option("--control-plane", metavar="NAME", help="Namespace of the control plane [found by its registration].")
@cluster_options
def command(port: int, no_browser: bool, control_plane: str | None, target: Target) -> None:
    """Open the web page of the mesh, through a port-forward of its own, until interrupted.

    The address holds a key: nobody else on this machine can use the page.
    """
    asyncio.run(_serve(target, control_plane, port, browse=not no_browser))


async def _serve(target: Target, control_plane: str | None, port: int, *, browse: bool) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with connect(kubeconfig=target.kubeconfig, context=target.context) as api:
        namespace = control_plane or await find_control_plane(api)
        if namespace is None:
            raise CliError("autotls is not installed in this cluster", hint="autotls install | kubectl apply -f -")
        async with PagesPod(api, namespace) as pod, _listening(api, namespace, pod, port) as address:
            # Found out now, not by the first page.
            await pod.address()
            output.result(f"{address}\n")
            output.report("the dashboard, until you press Ctrl-C")
            if browse:
                await asyncio.to_thread(webbrowser.open, address)
            await stop.wait()


@asynccontextmanager
async def _listening(api: HttpApi, namespace: str, pod: PagesPod, port: int) -> AsyncGenerator[str, None]:
    """The address, with its key, of the front while the block lasts. Raises CliError when the port is taken."""
    key = secrets.token_urlsafe(24)

    async def check() -> list[Checked]:
        return [
            checked(outcome)
            async for outcome in run_checks(INSTALLED, View(api, now=utc_now(), control_plane=namespace))
        ]

    front = Front(pod, key=key, tap=partial(events, api, namespace), check=check, now=utc_now)
    # Cancellation: a browser that goes away ends its tap.
    runner = web.AppRunner(front.application(), access_log=None, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    try:
        try:
            site = web.TCPSite(runner, "127.0.0.1", port)
            await site.start()
        except OSError as error:
            raise CliError(
                f"port {port} cannot be used: {error.strerror}", hint="choose another with --port"
            ) from error
        front.port = runner.addresses[0][1]
        yield f"http://127.0.0.1:{front.port}/?key={key}"
    finally:
        await runner.cleanup()


def checked(outcome: Outcome) -> Checked:
    """An outcome as the page shows it."""
    result = outcome.result
    found = tuple(Found(each.verdict.value, each.subject, each.message, each.hint) for each in result.findings)
    return Checked(
        outcome.section,
        outcome.check.id,
        outcome.check.description,
        result.verdict.value,
        result.message,
        result.hint,
        found,
    )
