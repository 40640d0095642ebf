"""Locks between processes, so that two runs never build, start or stop the same thing at once."""

import fcntl
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from cluster.progress import say


@contextmanager
def exclusive(path: Path, *, what: str) -> Generator[None]:
    """Hold the lock file; says what it waits for when another run holds it. The kernel frees it if we die."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another run that is busy with {what}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
