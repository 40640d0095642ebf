"""Reading manifests as kubectl does: files, folders, standard input."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli.errors import CliError, ManifestError

STDIN: Final = "-"
_SUFFIXES: Final = (".json", ".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Source:
    """The text of one file; `origin` names it in messages."""

    origin: str
    text: str


def read_sources(paths: Sequence[str], *, recursive: bool) -> tuple[Source, ...]:
    """Every file that `paths` names, in order; a folder stands for its .yaml, .yml and .json files.

    Raises CliError for what cannot be read and ManifestError for what is not UTF-8.
    """
    if list(paths).count(STDIN) > 1:
        raise CliError("standard input can be read only once", hint="give `-` once")
    return tuple(source for path in paths for source in _read(path, recursive=recursive))


def _read(path: str, *, recursive: bool) -> list[Source]:
    if path == STDIN:
        return [_decode("<stdin>", sys.stdin.buffer.read())]
    try:
        if not Path(path).is_dir():
            return [_decode(path, Path(path).read_bytes())]
        files = sorted(Path(path).rglob("*") if recursive else Path(path).iterdir())
        found = [file for file in files if file.suffix in _SUFFIXES and file.is_file()]
        if not found:
            raise CliError(f"{path} holds no {', '.join(_SUFFIXES)} file", hint="-R looks into its folders as well")
        return [_decode(str(file), file.read_bytes()) for file in found]
    except OSError as error:
        raise CliError(f"cannot read {path}: {error.strerror or error}", hint="give a file, a folder or `-`") from error


def _decode(origin: str, content: bytes) -> Source:
    try:
        return Source(origin, content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ManifestError(origin, line, "not UTF-8", hint="Kubernetes reads UTF-8 only") from error


def join(texts: Sequence[str]) -> str:
    """One stream from the texts of several files; a single one stays as it is."""
    joined = ""
    for text in texts:
        if joined:
            joined += ("" if joined.endswith("\n") else "\n") + "---\n"
        # A byte order mark is allowed at the beginning of a stream only.
        joined += text.removeprefix("\ufeff") if joined else text
    return joined
