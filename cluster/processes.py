"""Starting processes that outlive us, and ending exactly those later.

A process is known by pid, start time and boot: a pid alone may belong to somebody else by the time we look again.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from cluster.errors import StartError
from cluster.network import boot_id

_POLL_S: Final = 0.05
_KILLED_S: Final = 60.0
"""Far above what the kernel needs to end a killed process on a busy machine."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process that we started."""

    name: str
    pid: int
    start_ticks: int
    """Clock ticks from boot to its start, /proc/PID/stat field 22; survives exec."""
    boot: str

    @classmethod
    def read(cls, path: Path) -> Self:
        return cls(**json.loads(path.read_bytes()))

    def alive(self) -> bool:
        return self.boot == boot_id() and start_ticks(self.pid) == self.start_ticks


def start_ticks(pid: int) -> int | None:
    """When that process started, or None when there is none (a zombie has ended and counts as none)."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # our own child that ended stays a zombie until somebody asks
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return parse_start_ticks(stat)


def parse_start_ticks(stat: str) -> int | None:
    """Field 22 of /proc/PID/stat, proc(5); None for a zombie. The command name may hold spaces and brackets.

    A zombie with other threads (field 20) has not ended: they hold its files, and so its ports, a moment longer.
    """
    fields = stat[stat.rindex(")") + 2 :].split()
    state, threads, started = fields[0], int(fields[17]), fields[19]
    return None if state in ("Z", "X") and threads <= 1 else int(started)


@dataclass(frozen=True, slots=True)
class ProcessTable:
    """The processes of one cluster: a record for each in `records`, its output in `logs`."""

    records: Path
    logs: Path

    def start(
        self, name: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None, enter: Sequence[str] = ()
    ) -> Process:
        """Start it in a session of its own, so that a Ctrl-C meant for us does not end it; then record it.

        `enter` is a command prefix that switches namespaces and then becomes the program (nsenter). Raises StartError.
        """
        self.records.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        with (self.logs / f"{name}.log").open("ab") as log:
            try:
                child = subprocess.Popen(
                    [*enter, *argv],
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    cwd=self.logs,
                )
            except OSError as error:
                raise StartError(
                    f"{name} cannot be started: {error}", hint="build the programs: make binaries"
                ) from error
        # A child that ended at once has no start time any more; record one that can match nothing.
        process = Process(name, child.pid, start_ticks(child.pid) or -1, boot_id())
        child.returncode = 0  # keeps Popen from warning that we leave it running
        path = self.records / f"{name}.json"
        path.with_suffix(".new").write_text(json.dumps(asdict(process)))
        path.with_suffix(".new").rename(path)
        return process

    def get(self, name: str) -> Process | None:
        """The recorded process if it still runs."""
        try:
            process = Process.read(self.records / f"{name}.json")
        except FileNotFoundError:
            return None
        return process if process.alive() else None

    def all(self) -> tuple[Process, ...]:
        """Every recorded process that still runs."""
        names = sorted(path.stem for path in self.records.glob("*.json"))
        return tuple(process for process in map(self.get, names) if process is not None)

    def wait(self, process: Process, ready: Callable[[], bool], *, timeout_s: float) -> None:
        """Return when it is ready. Raises StartError with the end of its log when it ends or takes too long."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not process.alive():
                raise StartError(
                    f"{process.name} ended while starting: {self.tail(process.name)}", hint=self._where(process)
                )
            if time.monotonic() > deadline:
                raise StartError(f"{process.name} was not ready within {timeout_s:.0f} s", hint=self._where(process))
            time.sleep(_POLL_S)

    def stop(self, name: str, *, grace_s: float = 5.0) -> None:
        """End that process if it is ours and runs, and forget it."""
        process = self.get(name)
        if process is not None:
            end([process], grace_s=grace_s)
        (self.records / f"{name}.json").unlink(missing_ok=True)

    def tail(self, name: str) -> str:
        """The last line of its log that says something."""
        try:
            lines = (self.logs / f"{name}.log").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return "no output"
        return next((line.strip() for line in reversed(lines) if line.strip()), "no output")

    def _where(self, process: Process) -> str:
        return f"read {self.logs / process.name}.log"


def end(processes: Iterable[Process], *, grace_s: float) -> None:
    """SIGTERM, wait up to `grace_s`, then SIGKILL; only processes that are still the ones recorded."""
    left = [process for process in processes if process.alive()]
    for process in left:
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while (left := [process for process in left if process.alive()]) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    for process in left:
        _signal(process, signal.SIGKILL)
    # Even without grace: who starts a successor at once must not find the old one's ports, or its pid, still there.
    deadline = time.monotonic() + max(grace_s, _KILLED_S)
    while any(process.alive() for process in left) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def kill(pids: Callable[[], Iterable[int]], *, timeout_s: float = _KILLED_S) -> None:
    """SIGKILL what `pids` finds until it finds nothing (for groups that are ours by namespace or cgroup).

    Raises StartError when something survives, which means that it hangs in the kernel.
    """
    deadline = time.monotonic() + timeout_s
    while left := tuple(pids()):
        if time.monotonic() > deadline:
            raise StartError(
                f"processes {left} do not end", hint="look at them in /proc/PID/stack and run make down again"
            )
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(_POLL_S)


def _signal(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, number)
