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


def paint(text: str, colour: str, *, stream_is_terminal: bool) -> str:
    """Coloured for a terminal, unless NO_COLOR (no-color.org) says otherwise."""
    if not stream_is_terminal or os.environ.get("NO_COLOR"):
        return text
    return click.style(text, fg=colour)
