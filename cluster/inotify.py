"""The machine's limit of inotify instances: raised while clusters run, put back after the last one.

The kernel counts instances per uid across all containers, and every sidecar has the same uid and takes four
(docs/adr/0002): Debian's 128 end at the 32nd sidecar. The limit is the machine's, so a ledger beside the clusters'
folders says who needs it and what it was before.
"""

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster.layout import RunFolder
from cluster.locks import exclusive
from cluster.network import boot_id

LIMIT: Final = Path("/proc/sys/fs/inotify/max_user_instances")
NEEDED: Final = 1024
"""Instances: four for each sidecar of two nodes with the kubelet's 110 pods, and some to spare."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """Which clusters need the raised limit, and what it was; `before` is None where it was high enough."""

    boot: str
    before: int | None
    users: tuple[str, ...]

    def with_user(self, name: str) -> "Ledger":
        return Ledger(self.boot, self.before, tuple(sorted({*self.users, name})))

    def without_user(self, name: str) -> "Ledger":
        return Ledger(self.boot, self.before, tuple(user for user in self.users if user != name))


def raise_limit(folder: RunFolder, limit: Path = LIMIT) -> None:
    """Make room for this cluster's sidecars; a limit that is high enough stays."""
    with _locked(folder):
        current = int(limit.read_text())
        ledger = _read(folder) or Ledger(boot_id(), current if current < NEEDED else None, ())
        if current < NEEDED:
            limit.write_text(f"{NEEDED}\n")
        _write(folder, ledger.with_user(str(folder.name)))


def restore_limit(folder: RunFolder, limit: Path = LIMIT) -> None:
    """This cluster needs it no more. The last one puts the limit back, unless somebody else has changed it since."""
    with _locked(folder):
        ledger = _read(folder)
        if ledger is None:
            return
        left = ledger.without_user(str(folder.name))
        if left.users:
            _write(folder, left)
            return
        if left.before is not None and int(limit.read_text()) == NEEDED:
            limit.write_text(f"{left.before}\n")
        _path(folder).unlink()


def _path(folder: RunFolder) -> Path:
    return folder.root.parent / "inotify.json"


def _locked(folder: RunFolder) -> AbstractContextManager[None]:
    return exclusive(folder.root.parent / "inotify.lock", what="the limit of inotify instances")


def _read(folder: RunFolder) -> Ledger | None:
    """The ledger; None when there is none, or only one of before the machine was started."""
    try:
        stored = json.loads(_path(folder).read_bytes())
    except FileNotFoundError:
        return None
    ledger = Ledger(stored["boot"], stored["before"], tuple(stored["users"]))
    return ledger if ledger.boot == boot_id() else None


def _write(folder: RunFolder, ledger: Ledger) -> None:
    content = {"boot": ledger.boot, "before": ledger.before, "users": ledger.users}
    aside = _path(folder).with_suffix(".json.new")
    aside.write_text(json.dumps(content) + "\n")
    aside.rename(_path(folder))
