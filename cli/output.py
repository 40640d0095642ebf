"""Words on the terminal: reports on stderr, results on stdout, colour only where a person looks."""

import os
import sys
from typing import Final

import click

GOOD: Final = "green"
WARN: Final = "yellow"
BAD: Final = "red"
DIM: Final = "bright_black"


def report(message: str) -> None:
    """One line on stderr."""
    click.echo(message, err=True)


def warn(message: str) -> None:
    report(f"{paint('warning', WARN, stream_is_terminal=sys.stderr.isatty())}: {message}")


def error(message: str, hint: str) -> None:
    """What broke on one line, what to do about it on the next."""
    terminal = sys.stderr.isatty()
    report(f"{paint('error', BAD, stream_is_terminal=terminal)}: {message}")
    if hint:
        report(f"{paint('hint', DIM, stream_is_terminal=terminal)}: {hint}")


def result(text: str) -> None:
    """`text` on stdout, its line breaks unchanged."""
    # Not click.echo: text mode would turn \n into the platform's line break.
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()


def harmless(text: str, limit: int = 120) -> str:
    """`text` from the wire for a terminal: one line, no control or invisible character, at most `limit` characters.

    What is not printable (escape sequences, line breaks, marks that reverse the direction of writing, lone surrogates)
    is shown as `\\x1b` or `\\u202e`, so it can neither act on the terminal nor pass for something else.
    """
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)


def paint(text: str, colour: str, *, stream_is_terminal: bool) -> str:
    """Coloured for a terminal, unless NO_COLOR (no-color.org) says otherwise."""
    if not stream_is_terminal or os.environ.get("NO_COLOR"):
        return text
    return click.style(text, fg=colour)
