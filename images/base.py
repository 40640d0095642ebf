"""The base image where no registry is in reach: a minimal Debian, made by debootstrap from the machine's mirror."""

import shutil
import tempfile
from pathlib import Path
from typing import Final

from cluster import host
from cluster.layout import Cache
from cluster.progress import run_logged, say
from images import spec

_SLIM: Final = """# As in Debian's own slim images: nobody reads documentation in a container; licences stay.
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/man/*
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/lintian/*
"""
_HINT: Final = "check that the Debian mirror is reachable, or name a base image: make images BASE_IMAGE=…"


def ensure_rootfs(cache: Cache) -> Path:
    """The tar file of the root file system, made now if it is not there (about a minute). Raises ClusterError."""
    archive = cache.images / f"rootfs-{spec.base_tag()}.tar"
    if archive.exists():
        return archive
    host.install(host.IMAGE_APT_PACKAGES)
    cache.images.mkdir(parents=True, exist_ok=True)
    say(f"making a minimal Debian {spec.SUITE} (once; about a minute)")
    work = Path(tempfile.mkdtemp(prefix=".rootfs-", dir=cache.images))
    try:
        root, aside = work / "root", work / "rootfs.tar"
        log = cache.images / "debootstrap.log"
        run_logged(
            ["debootstrap", "--variant=minbase", spec.SUITE, str(root)], title="debootstrap", log=log, hint=_HINT
        )
        trim(root)
        # The engine makes these itself; device nodes in a layer cannot be unpacked everywhere.
        without = [f"--exclude=./{folder}/*" for folder in ("dev", "proc", "sys", "run", "tmp")]
        run_logged(
            ["tar", "--create", f"--file={aside}", f"--directory={root}", "--numeric-owner", *without, "."],
            title="tar",
            log=log,
            hint="is there room in the cache folder?",
        )
        aside.rename(archive)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return archive


def trim(root: Path) -> None:
    """Remove what a container does not need, and keep later packages from bringing it back."""
    (root / "etc/dpkg/dpkg.cfg.d/slim").write_text(_SLIM)
    for folder in ("man", "info", "locale", "lintian"):
        _empty(root / "usr/share" / folder)
    for path in (root / "usr/share/doc").rglob("*"):
        if path.is_file() and path.name != "copyright":
            path.unlink()
    for folder in ("var/lib/apt/lists", "var/cache/apt", "var/log"):
        _empty(root / folder)
    sources = root / "etc/apt/sources.list"
    sources.write_text(with_updates(sources.read_text()))


def with_updates(sources: str) -> str:
    """debootstrap writes one `deb MIRROR SUITE main`; add the suite's updates and security fixes of that mirror."""
    kind, mirror, suite, *components = sources.split()
    parts = " ".join(components)
    lines = [
        f"{kind} {mirror} {suite} {parts}",
        f"{kind} {mirror} {suite}-updates {parts}",
        f"{kind} {mirror.rstrip('/')}-security {suite}-security {parts}",
    ]
    return "\n".join(lines) + "\n"


def _empty(folder: Path) -> None:
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
