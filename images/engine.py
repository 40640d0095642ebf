"""The program that builds images: docker, podman or buildah, the first that works."""

import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster import host
from cluster.layout import Cache
from cluster.progress import run_logged

_STORAGE_MAX_BYTES: Final = 8 * 2**30
"""buildah keeps the layers of every build; beyond this they are forgotten, and the next build starts from nothing."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A working engine. Storage of buildah is the cache's, so that nothing of another user's is listed or removed."""

    name: str
    command: tuple[str, ...]

    def build(self, context: Path, *, dockerfile: str, reference: str, arguments: Sequence[str], log: Path) -> None:
        """Build the context's Dockerfile under that name. Raises BuildError."""
        if self.name == "buildah":
            # chroot isolation needs no runtime and no daemon. With layers kept, a change of our code installs no
            # Debian package again.
            how = ("build", "--isolation=chroot", "--layers", "--pull=false", "--format=oci")
            # A second name keeps the layers when the first is removed after the export.
            how = (*how, f"--tag=localhost/layers-of-{reference.rpartition('/')[2].partition(':')[0]}")
        else:
            how = ("build", "--quiet") if self.name == "podman" else ("build",)
        settings = [f"--build-arg={argument}" for argument in arguments]
        run_logged(
            [*self.command, *how, *settings, f"--file={context / dockerfile}", f"--tag={reference}", str(context)],
            title=reference,
            log=log,
            hint="the last lines say which step failed",
        )

    def export(self, reference: str, archive: Path, *, log: Path) -> None:
        """Write the image to an OCI archive, then forget it. Raises BuildError."""
        commands = {
            "docker": [*self.command, "save", f"--output={archive}", reference],
            "podman": [*self.command, "save", "--format=oci-archive", f"--output={archive}", reference],
            "buildah": [
                *self.command,
                "push",
                "--quiet",
                "--disable-compression",
                reference,
                f"oci-archive:{archive}:{reference}",
            ],
        }
        run_logged(commands[self.name], title=f"export of {reference}", log=log, hint="is there room in the cache?")

    def has(self, reference: str) -> bool:
        """Whether an image of that name is there."""
        inspect = ("inspect", "--type=image") if self.name == "buildah" else ("image", "inspect")
        return _succeeds((*self.command, *inspect, reference))

    def remove(self, reference: str) -> None:
        """Forget the image; an engine that never had it does not mind."""
        _succeeds((*self.command, "rmi", reference))


def find(cache: Cache) -> Engine:
    """The first engine that works; buildah is installed when there is none. Raises HostError."""
    chosen = choose(_succeeds)
    if chosen is not None:
        return chosen
    host.install(host.IMAGE_APT_PACKAGES)
    storage = cache.images / "storage"
    if _size_bytes(storage) > _STORAGE_MAX_BYTES:
        shutil.rmtree(storage)
    storage.mkdir(parents=True, exist_ok=True)
    return Engine(
        "buildah",
        (
            # buildah leaves its storage mounted; in a mount namespace of its own nothing stays behind.
            "unshare",
            "--mount",
            "buildah",
            f"--root={storage}",
            f"--runroot={storage / 'run'}",
            "--storage-driver=overlay",
        ),
    )


def _size_bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*")) if folder.is_dir() else 0


def choose(works: Callable[[tuple[str, ...]], bool]) -> Engine | None:
    """docker or podman when it answers: a client without an engine is no engine."""
    for name in ("docker", "podman"):
        if works((name, "info")):
            return Engine(name, (name,))
    return None


def _succeeds(argv: tuple[str, ...]) -> bool:
    if shutil.which(argv[0]) is None:
        return False
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0
