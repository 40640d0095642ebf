"""What each image is made of: pure data, and the tag that follows from the content."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Final

REGISTRY: Final = "autotls.local"
"""A name that no registry answers to: these images come from archives only."""

SUITE: Final = "bookworm"
_BASE_REVISION: Final = b"1"
"""Raise it when base.py makes the root file system differently."""


class Download(Enum):
    """What is fetched with pip before the build and put into the build context, under `build/`."""

    WHEELS = auto()
    ENVOY = auto()


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """One image."""

    name: str
    inputs: tuple[str, ...]
    """Files and folders of the repository that its Dockerfile copies; the build context holds these and no more."""
    downloads: tuple[Download, ...] = ()

    @property
    def dockerfile(self) -> str:
        return f"images/{self.name}/Dockerfile"

    def reference(self, tag: str) -> str:
        return f"{REGISTRY}/{self.name}:{tag}"


IMAGES: Final = (
    ImageSpec(
        "control-plane",
        (
            "images/control-plane",
            *("mesh", "kube", "process", "webhook", "ca", "discovery", "telemetry", "dashboard", "cli"),
            "charts/autotls",
        ),
        (Download.WHEELS,),
    ),
    ImageSpec("proxy", ("images/proxy", "proxy", "requirements.lock"), (Download.ENVOY,)),
    ImageSpec("testbox", ("images/testbox",)),
)


def files(repository: Path, spec: ImageSpec) -> Iterator[Path]:
    """Every file that goes into the build context, relative to the repository, in a fixed order."""
    for entry in spec.inputs:
        path = repository / entry
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in found:
            if file.is_file() and "__pycache__" not in file.parts:
                yield file.relative_to(repository)


def content_tag(repository: Path, spec: ImageSpec, base: str) -> str:
    """Twelve hex digits that change when anything that goes into the image changes."""
    digest = hashlib.sha256(base.encode())
    for file in files(repository, spec):
        path = repository / file
        executable = path.stat().st_mode & 0o100
        digest.update(f"{file}\0{executable}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def base_tag() -> str:
    """Names the base image: the Debian suite and how we trim it."""
    return f"{SUITE}-{hashlib.sha256(SUITE.encode() + _BASE_REVISION).hexdigest()[:8]}"
