"""From the repository to an OCI archive in the cache, once for each content."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster.layout import REPOSITORY, Cache
from cluster.locks import exclusive
from cluster.progress import say
from images import base, downloads, engine, spec
from images.engine import Engine
from images.spec import ImageSpec

_KEPT_ARCHIVES: Final = 4
"""Of each image: branches and undone changes come back, and another checkout may use the same cache."""


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An archive in the cache, and the name of the image in it."""

    name: str
    reference: str
    archive: Path

    @property
    def size_bytes(self) -> int:
        return self.archive.stat().st_size


def ensure_all(cache: Cache, *, named_base: str = "") -> tuple[BuiltImage, ...]:
    """All our images, built as far as their content changed. Raises ClusterError."""
    return tuple(ensure(cache, image, named_base=named_base) for image in spec.IMAGES)


def ensure(cache: Cache, image: ImageSpec, *, repository: Path = REPOSITORY, named_base: str = "") -> BuiltImage:
    """That image, built now if its content is new, on the base image of that name or on our own choice.

    Raises ClusterError.
    """
    tag = spec.content_tag(repository, image, named_base or spec.base_tag())
    built = BuiltImage(image.name, image.reference(tag), cache.images / f"{image.name}-{tag}.tar")
    if not built.archive.exists():
        with exclusive(cache.images / "build.lock", what="building images"):
            if not built.archive.exists():
                _build(cache, image, repository, built, named_base)
                _prune(cache, image)
    built.archive.touch()  # in use now: another checkout's builds push out older ones
    return built


def _build(cache: Cache, image: ImageSpec, repository: Path, built: BuiltImage, named_base: str) -> None:
    say(f"building the image {image.name}")
    builder = engine.find(cache)
    log = cache.images / f"{image.name}.log"
    base_image = named_base or _own_base(cache, builder)
    work = Path(tempfile.mkdtemp(prefix=f".{image.name}-", dir=cache.images))
    try:
        context = work / "context"
        stage(repository, image, context)
        for download in image.downloads:
            fetched = downloads.fetch(cache, download, repository=repository, log=log.with_suffix(".download.log"))
            # Links keep the files' times, by which the engine knows that a step need not run again.
            shutil.copytree(fetched, context / "build", dirs_exist_ok=True, copy_function=os.link)
        arguments = [f"BASE_IMAGE={base_image}"] if base_image else []
        builder.build(context, dockerfile=image.dockerfile, reference=built.reference, arguments=arguments, log=log)
        aside = work / "image.tar"
        builder.export(built.reference, aside, log=log.with_suffix(".export.log"))
        aside.rename(built.archive)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    builder.remove(built.reference)


def stage(repository: Path, image: ImageSpec, context: Path) -> None:
    """Copy what the image is made of, and only that: the tag is a hash of these files, so nothing else may matter."""
    for file in spec.files(repository, image):
        (context / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(repository / file, context / file)


def _own_base(cache: Cache, builder: Engine) -> str:
    """Docker and podman take the Dockerfile's own default; buildah here builds on a Debian of our own."""
    if builder.name != "buildah":
        return ""
    reference = f"localhost/autotls-base:{spec.base_tag()}"
    if not builder.has(reference):
        rootfs = base.ensure_rootfs(cache)
        work = Path(tempfile.mkdtemp(prefix=".base-", dir=cache.images))
        try:
            shutil.copyfile(REPOSITORY / "images/base/Dockerfile", work / "Dockerfile")
            (work / "rootfs.tar").hardlink_to(rootfs)
            log = cache.images / "base.log"
            builder.build(work, dockerfile="Dockerfile", reference=reference, arguments=[], log=log)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return reference


def _prune(cache: Cache, image: ImageSpec) -> None:
    archives = sorted(cache.images.glob(f"{image.name}-*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in archives[_KEPT_ARCHIVES:]:
        old.unlink(missing_ok=True)
