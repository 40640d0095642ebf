"""Telling who waits what is going on: one line for each step, with the time since the start."""

import os
import selectors
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from cluster.errors import BuildError

_STARTED: Final = time.monotonic()
_EVERY_S: Final = 20.0


def say(message: str) -> None:
    """A line on stderr (stdout is for what scripts read)."""
    elapsed = int(time.monotonic() - _STARTED)
    print(f"[{elapsed // 60:d}:{elapsed % 60:02d}] {message}", file=sys.stderr, flush=True)


def run_logged(
    argv: Sequence[str],
    *,
    title: str,
    log: Path,
    hint: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Run a long command: its output goes to `log`, a line every 20 s says that it lives and how much it has printed.

    Raises BuildError with the last lines of the output when the command fails.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    # A run that is killed frees its lock at once; a compiler that it left behind would build beside the next run's.
    with_us = ("setpriv", "--pdeathsig", "TERM") if shutil.which("setpriv") else ()
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [*with_us, *argv],
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        assert process.stdout is not None
        _copy(process.stdout, output, title)
    if process.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        raise BuildError(f"{title} failed (exit code {process.returncode}):\n{tail}", hint=f"{hint}; all output: {log}")


def _copy(source: IO[bytes], target: IO[bytes], title: str) -> None:
    started = shown = time.monotonic()
    lines = 0
    with selectors.DefaultSelector() as ready:
        ready.register(source, selectors.EVENT_READ)
        while True:
            if ready.select(timeout=_EVERY_S):
                chunk = os.read(source.fileno(), 65536)  # what is there; source.read would wait for a full buffer
                if not chunk:
                    return
                target.write(chunk)
                lines += chunk.count(b"\n")
            now = time.monotonic()
            if now - shown >= _EVERY_S:
                shown = now
                say(f"{title}: {int(now - started)} s, {lines} steps done")
