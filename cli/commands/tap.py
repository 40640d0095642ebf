"""`autotls tap`."""

import asyncio
import sys
from datetime import timedelta
from ipaddress import ip_address
from typing import Final

import click

from cli import output
from cli.errors import CliError
from cli.installation import find_control_plane
from cli.resources import parse_kind, parse_resources
from cli.tables import tap as tables
from cli.tap_causes import Causes
from cli.tapping import Status, tapping, token_for
from cli.target import Target, cluster_options, context_namespace
from discovery import entries
from discovery.entries import Entry, Selection
from kube.client import connect
from mesh import names
from mesh.config import ConfigError, parse_duration
from telemetry.rows import Kind

DEFAULT_MAX_RPS: Final = 100.0


@click.command("tap", epilog="What each column means, and who may tap: docs/tap.md.")
@click.argument("resource", nargs=-1, metavar="[KIND/NAME]")
@click.option("-n", "--namespace", metavar="NAME", help="Namespace [that of the context, else default].")
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="All namespaces.")
@click.option("--to", metavar="KIND/NAME|ADDRESS", help="Only what goes there; NAMESPACE/KIND/NAME for another one.")
@click.option("--path", default="", metavar="PREFIX", help="Only requests whose path begins so.")
@click.option("--method", default="", metavar="NAME", help="Only requests of that method.")
@click.option("--authority", default="", metavar="HOST", help="Only requests to that host (or host:port).")
@click.option("--tls/--no-tls", "tls", default=None, help="Only mutual TLS, or only what was not.")
@click.option(
    "--max-rps", type=click.FloatRange(0, 10_000), default=DEFAULT_MAX_RPS, show_default=True,
    help="At most so many a second; 0 for all that discovery can read.",
)  # fmt: skip
@click.option("--for", "lasting", metavar="DURATION", help="End after 30s, 5m, ... [when interrupted].")
@click.option("-o", "--output", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--service-account", metavar="NAMESPACE/NAME", help="Tap with a short token of this ServiceAccount.")
@click.option("--control-plane", metavar="NAME", help="Namespace of the control plane [found by its registration].")
@cluster_options
def command(  # noqa: PLR0913, PLR0917 - click passes options by name
    resource: tuple[str, ...],
    namespace: str | None,
    everywhere: bool,
    to: str | None,
    path: str,
    method: str,
    authority: str,
    tls: bool | None,
    max_rps: float,
    lasting: str | None,
    form: str,
    service_account: str | None,
    control_plane: str | None,
    target: Target,
) -> None:
    """Watch requests and connections of a workload as its proxies see them, each when it is over.

    Without KIND/NAME: of everything in the namespace. Bodies, header values and queries are never shown.
    """
    here = "" if everywhere else namespace or context_namespace(target) or "default"
    selection = Selection(
        whose(resource, here),
        to=where(to, here) if to else None,
        method=method,
        authority=authority,
        path=path,
        tls=tls,
        max_rps=max_rps,
    )
    if fault := entries.faults(selection):
        raise click.UsageError(fault)
    account = _account(service_account) if service_account else None
    asyncio.run(_tap(target, control_plane, selection, account, _until(lasting), form))


async def _tap(  # noqa: PLR0917
    target: Target,
    control_plane: str | None,
    selection: Selection,
    account: tuple[str, str] | None,
    lasting_s: float | None,
    form: str,
) -> None:
    async with connect(kubeconfig=target.kubeconfig, context=target.context) as api:
        where = control_plane or await find_control_plane(api) or names.DEFAULT_CONTROL_PLANE_NAMESPACE
        show, causes = _Show(selection, form), Causes(api)
        try:
            async with asyncio.timeout(lasting_s), tapping(
                api, where, selection, lambda: token_for(api, where, account)
            ) as told:  # fmt: skip
                async for each in told:
                    show.take(await causes.explain(each) if isinstance(each, Entry) else each)
        except TimeoutError:
            return


class _Show:
    """Entries on stdout, how it goes on stderr."""

    def __init__(self, selection: Selection, form: str) -> None:
        self._of, self._max_rps, self._json = selection.of, selection.max_rps, form == "json"
        self._before = Status()
        self._terminal = sys.stdout.isatty()

    def take(self, told: Entry | Status) -> None:
        if isinstance(told, Status):
            self._report(told)
            return
        line = tables.as_json(told) if self._json else tables.as_line(told, self._paint)
        output.result(line + "\n")

    def _paint(self, text: str, colour: str) -> str:
        return output.paint(text, colour, stream_is_terminal=self._terminal)

    def _report(self, now: Status) -> None:
        before, self._before = self._before, now
        if (now.replicas, now.proxies) != (before.replicas, before.proxies):
            if now.replicas and not now.proxies:
                output.warn(f"no connected proxy belongs to {self._of}; `autotls check` says which pods are meshed")
            else:
                output.report(f"tapping {now.proxies} proxies of {self._of} through {now.replicas} replicas")
        if skipped := now.skipped - before.skipped:
            output.report(f"{skipped} more than --max-rps {self._max_rps:g} were skipped")
        if lost := now.lost - before.lost:
            output.warn(f"{lost} came faster than they could be read, and are lost")


def whose(words: tuple[str, ...], namespace: str) -> entries.Target:
    """`deploy/web`, or all of the namespace (empty: of all). Raises CliError, click.UsageError."""
    if not words:
        return entries.Target(entries.NAMESPACE, namespace)
    found = parse_resources(words)
    if found.kind is Kind.AUTHORITY:
        raise click.UsageError("an authority is not tapped: use --authority")
    if len(found.names) != 1:
        raise click.UsageError("name one thing to tap, as deploy/web, or none for the whole namespace")
    return _target(found.kind, namespace, found.names[0])


def where(text: str, namespace: str) -> entries.Target:
    """`deploy/web`, `shop/deploy/web`, `ns/shop`, `10.0.0.1`. Raises CliError."""
    parts = text.split("/")
    if len(parts) == 1:
        try:
            return entries.Target(entries.ADDRESS, name=str(ip_address(text)))
        except ValueError:
            raise CliError(f"{text!r} is no address", hint="write deploy/web, svc/web or ns/shop") from None
    if len(parts) == 3:
        namespace = parts.pop(0)
    if len(parts) != 2 or not all(parts):
        raise CliError(f"{text!r} names nothing", hint="write deploy/web, shop/deploy/web, svc/web or ns/shop")
    return _target(parse_kind(parts[0]), namespace, parts[1])


def _target(kind: Kind, namespace: str, name: str) -> entries.Target:
    if kind is Kind.NAMESPACE:
        return entries.Target(entries.NAMESPACE, name)
    if not namespace:
        raise CliError(f"of which namespace is {kind.value}/{name}?", hint="give -n instead of -A")
    return entries.Target(kind.value, namespace, name)


def _account(text: str) -> tuple[str, str]:
    namespace, slash, name = text.partition("/")
    if not (slash and namespace and name) or "/" in name:
        raise click.BadParameter("write NAMESPACE/NAME", param_hint="--service-account")
    return namespace, name


def _until(lasting: str | None) -> float | None:
    try:
        return (parse_duration(lasting, field="--for") if lasting else timedelta(0)).total_seconds() or None
    except ConfigError as error:
        raise click.BadParameter(error.message, param_hint="--for") from error
