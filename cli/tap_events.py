"""A tap for the web page: what was asked for in its form, and entries as the cells of its table."""

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Final

import click

from cli.commands.tap import DEFAULT_MAX_RPS, where, whose
from cli.errors import CliError
from cli.front import Event
from cli.output import harmless
from cli.tap_causes import Causes
from cli.tapping import Status, tapping, token_for
from discovery import entries
from discovery.entries import Entry, Place, Selection
from kube.client import HttpApi
from mesh.errors import AutotlsError
from telemetry.figures import NONE, duration, size

_TLS: Final = {"true": True, "false": False}
_PATH: Final = 200


def selection_of(query: Mapping[str, str]) -> Selection:
    """From the fields of the form. Raises CliError, click.UsageError that say what is wrong."""
    namespace = query.get("namespace", "")
    workload, to = query.get("workload", "").strip(), query.get("to", "").strip()
    if workload and not namespace:
        raise CliError(f"of which namespace is {workload}?", hint="choose one")
    try:
        max_rps = float(query.get("max_rps") or DEFAULT_MAX_RPS)
    except ValueError:
        raise CliError("at most how many a second?", hint="a number such as 100") from None
    selection = Selection(
        whose((workload,) if workload else (), namespace),
        to=where(to, namespace) if to else None,
        method=query.get("method", "").strip(),
        authority=query.get("authority", "").strip(),
        path=query.get("path", "").strip(),
        tls=_TLS.get(query.get("tls", "")),
        max_rps=max_rps,
    )
    if fault := entries.faults(selection):
        raise CliError(fault, hint="change the form")
    return selection


async def events(api: HttpApi, control_plane: str, query: Mapping[str, str]) -> AsyncGenerator[Event, None]:
    """`entry`, `status` and, as the last one, `problem`; until it is closed."""
    try:
        selection, causes = selection_of(query), Causes(api)
        async with tapping(api, control_plane, selection, lambda: token_for(api, control_plane, None)) as told:
            async for each in told:
                if isinstance(each, Entry):
                    yield "entry", json.dumps(cells(await causes.explain(each)))
                else:
                    yield "status", json.dumps(status(each))
    except click.UsageError as error:
        yield "problem", json.dumps(error.format_message())
    except AutotlsError as error:
        yield "problem", json.dumps(f"{error.message}. {error.hint}".rstrip(". "))


def status(now: Status) -> str:
    """How a tap is doing, in a sentence; empty before anything is known."""
    if not now.replicas:
        return ""
    told = f"{now.proxies} proxies through {now.replicas} replicas"
    if now.skipped:
        told += f", {now.skipped} more than the limit were skipped"
    if now.lost:
        told += f", {now.lost} came too fast and are lost"
    return told


def cells(entry: Entry) -> dict[str, str | bool]:
    """The cells of an entry's row, each harmless on its own: the page shows them as text besides."""
    return {
        "time": harmless(entry.time.partition("T")[2].removesuffix("Z")[:12], 40) or NONE,
        "direction": harmless(entry.direction, 10),
        "source": _end(entry.source),
        "destination": _end(entry.destination),
        "request": _request(entry),
        "status": _status(entry),
        "latency": duration(entry.latency_ms * 1000),
        "bytes": size(entry.received_bytes + entry.sent_bytes),
        "tls": "true" if entry.tls else harmless(entry.reason or NONE, 80),
        "secure": entry.tls,
        "peer": harmless(entry.peer, 253) or NONE,
    }


def _end(place: Place) -> str:
    return harmless(place.workload or place.pod or place.address or NONE, 253)


def _status(entry: Entry) -> str:
    if not entry.status:
        return harmless(",".join(entry.flags), 80) or NONE
    return str(entry.status) if entry.grpc_status is None else f"{entry.status} grpc {entry.grpc_status}"


def _request(entry: Entry) -> str:
    if entry.protocol == "TCP":
        return "TCP"
    return f"{harmless(entry.method or NONE, 40)} {harmless(entry.authority, 120)}{harmless(entry.path or NONE, _PATH)}"
