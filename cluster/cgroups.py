"""The cgroup that holds a cluster's pods, in version 1 (one tree for each controller) and version 2 (one tree)."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cluster.errors import StartError

_ROOT: Final = Path("/sys/fs/cgroup")
# Far above the moment for which the kernel keeps a cgroup whose last process has ended.
_BUSY_S: Final = 60.0
# A node's processors against everything else on the machine. By default all pods together weigh as much as one process
# outside of any cgroup, so that beside a compiler or two they stand still for a quarter of a minute.
# Files of version 1 (kernel's default 1024) and 2 (default 100).
_WEIGHTS: Final = {"cpu.shares": "16384", "cpu.weight": "1600"}


def create(name: str) -> None:
    """Make the cgroup where the kubelet insists that it exists before it starts. Raises StartError."""
    try:
        if _unified():
            (_ROOT / name).mkdir(exist_ok=True)
            available = (_ROOT / "cgroup.controllers").read_text().split()
            for folder in (_ROOT, _ROOT / name):
                (folder / "cgroup.subtree_control").write_text(" ".join(f"+{controller}" for controller in available))
            _weigh(_ROOT / name)
            return
        for tree in _trees():
            folder = tree / name
            folder.mkdir(exist_ok=True)
            # A new cpuset is empty and takes no process until it names CPUs and memory nodes.
            for file in ("cpuset.cpus", "cpuset.mems"):
                if (folder / file).exists():
                    (folder / file).write_text((tree / file).read_text())
            _weigh(folder)
    except OSError as error:
        raise StartError(
            f"the pods' cgroup cannot be made: {error}", hint="mount the cgroup file system read-write"
        ) from error


def _weigh(folder: Path) -> None:
    for file, weight in _WEIGHTS.items():
        if (folder / file).exists():
            (folder / file).write_text(weight)


def pids(name: str) -> tuple[int, ...]:
    """Every process in the cgroup and below it."""
    found: set[int] = set()
    for tree in _trees():
        for folder, _, _ in os.walk(tree / name):
            with contextlib.suppress(OSError):  # removed while we look
                found.update(int(pid) for pid in Path(folder, "cgroup.procs").read_text().split())
    return tuple(sorted(found))


def remove(name: str) -> None:
    """Remove the cgroup, deepest first; it must hold no process. Raises StartError when the kernel keeps it busy."""
    deadline = time.monotonic() + _BUSY_S
    for tree in _trees():
        while (tree / name).exists():
            for folder, _, _ in os.walk(tree / name, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
            if not (tree / name).exists():
                break
            # A killed process leaves its cgroup a moment after it is gone from /proc.
            if time.monotonic() > deadline:
                raise StartError(f"the cgroup {tree / name} stays busy", hint="run make down again")
            time.sleep(0.05)


def _unified() -> bool:
    return (_ROOT / "cgroup.controllers").exists()


def _trees() -> Iterator[Path]:
    """The mount points of all hierarchies; the hybrid layout's `unified` tree too, which carries no controllers."""
    if _unified():
        yield _ROOT
        return
    for path in sorted(_ROOT.iterdir()):
        # cpu,cpuacct and friends appear again as links to the one tree they share.
        if path.is_dir() and not path.is_symlink():
            yield path
