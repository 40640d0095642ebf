"""Where `stat` and `edges` take their numbers from, and the options that both have. The edge."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import aiohttp
import click

from cli import output
from cli.installation import find_control_plane, read_config
from cli.target import Target, cluster_options, context_namespace
from kube.client import Api, connect
from kube.errors import ApiError
from mesh.config import ConfigError, parse_duration
from telemetry.measurement import Measurement
from telemetry.prometheus import PrometheusMeter, asking
from telemetry.scrape import Meter

_F = TypeVar("_F", bound=Callable[..., Any])
DEFAULT_WINDOW: Final = "10s"
# Asks the proxies although the chart names a Prometheus.
_NO_PROMETHEUS: Final = "none"
# Moves to the top of the screen and clears what is below.
_CLEAR: Final = "\x1b[H\x1b[J"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for: of one namespace or of all (None), counted for `window_s`, once or again and again."""

    target: Target
    namespace: str | None
    window_s: float
    form: str
    watch: bool
    prometheus_url: str | None

    @property
    def wide(self) -> bool:
        return self.form == "wide"


def question_options(command: _F) -> _F:
    """The options of `Question`, handed to the command as `question`."""

    def invoke(
        *args: Any,
        target: Target,
        namespace: str | None,
        everywhere: bool,
        window: str,
        form: str,
        watch: bool,
        prometheus_url: str | None,
        **kwargs: Any,
    ) -> Any:
        where = None if everywhere else namespace or context_namespace(target) or "default"
        question = Question(target, where, _seconds(window), form, watch, prometheus_url)
        return command(*args, question=question, **kwargs)

    invoke.__doc__ = command.__doc__
    invoke.__name__ = command.__name__
    invoke.__click_params__ = list(getattr(command, "__click_params__", []))  # type: ignore[attr-defined]
    forms = click.Choice(["table", "wide", "json"])
    for option in (
        click.option(
            "--prometheus-url",
            metavar="URL",
            help="Take the numbers from this Prometheus [the chart's prometheus.url]; none: ask the proxies.",
        ),
        click.option("-w", "--watch", is_flag=True, help="Again and again, until interrupted."),
        click.option("-o", "--output", "form", type=forms, default="table", show_default=True),
        click.option(
            *("-t", "--time-window", "window"),
            metavar="DURATION",
            default=DEFAULT_WINDOW,
            show_default=True,
            help="How long to count, as 30s, 1m, 10m.",
        ),
        click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="All namespaces."),
        click.option("-n", "--namespace", metavar="NAME", help="Namespace [that of the context, else default]."),
    ):
        option(invoke)
    return cast(_F, cluster_options(invoke))


def _seconds(window: str) -> float:
    try:
        found = parse_duration(window, field="-t").total_seconds()
    except ConfigError as error:
        raise click.BadParameter(error.message, param_hint="-t") from error
    if not found:
        raise click.BadParameter("nothing happens in no time", param_hint="-t")
    return found


def answer(question: Question, show: Callable[[Measurement], str]) -> None:
    """Measures, and writes what `show` makes of it; with `watch` until it is interrupted. Raises AutotlsError."""
    asyncio.run(_answer(question, show))


async def _answer(question: Question, show: Callable[[Measurement], str]) -> None:
    clear = question.watch and question.form != "json" and sys.stdout.isatty()
    async with _measuring(question) as measure:
        while True:
            found = await measure(question.window_s)
            output.result((_CLEAR if clear else "") + show(found))
            if question.form != "json":
                for note in found.notes:
                    output.warn(output.harmless(note, 400))
            if not question.watch:
                return


@asynccontextmanager
async def _measuring(question: Question) -> AsyncGenerator[Callable[[float], Awaitable[Measurement]]]:
    async with connect(kubeconfig=question.target.kubeconfig, context=question.target.context) as api:
        url = await _installed_url(api) if question.prometheus_url is None else question.prometheus_url
        if url in ("", _NO_PROMETHEUS):
            yield Meter(api, question.namespace).measure
            return
        async with aiohttp.ClientSession() as session:
            yield PrometheusMeter(api, asking(api, url, session), question.namespace).measure


async def _installed_url(api: Api) -> str:
    """The chart's `prometheus.url`; empty where there is none, or the configuration may not be read."""
    with suppress(ApiError, ConfigError):
        where = await find_control_plane(api)
        config = await read_config(api, where) if where else None
        if config:
            return config.prometheus_url
    return ""
