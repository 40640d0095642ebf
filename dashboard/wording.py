"""What telemetry.figures does not word: text from outside, times, names. `-` where a value has no meaning. Pure."""

from datetime import datetime
from typing import Any, Final

from markupsafe import Markup

from telemetry.figures import NONE

# Longer text comes from outside (an authority, a path) and says no more.
_MAX_TEXT: Final = 300


def printable(value: Any) -> Any:
    """What every expression of a template goes through: text from outside without what acts on its reader.

    Control characters, lone surrogates and marks that turn the direction of writing become visible, as in
    `cli.output`; Jinja escapes the rest. Very long text is cut.
    """
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    if len(value) > _MAX_TEXT:
        value = value[:_MAX_TEXT] + "…"
    if value.isprintable():
        return value
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in value)


def rate(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}"


def left(until: datetime, now: datetime) -> str:
    """The time until then, in its two largest units: `16h 04m`, `3d 02h`."""
    seconds = int((until - now).total_seconds())
    if seconds <= 0:
        return "expired"
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{days}d {hours:02d}h"
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {seconds % 60:02d}s"


def moment(value: datetime) -> str:
    """UTC, to the second."""
    return value.strftime("%Y-%m-%d %H:%M:%S UTC")


def clock(value: datetime) -> str:
    return value.strftime("%H:%M:%S UTC")


def shortened(value: str, most: int) -> str:
    return value if len(value) <= most else value[: most - 1] + "…"
