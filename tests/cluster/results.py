"""What was seen on the real cluster, as tables for `docs/results.md`.

A test module declares a `Table` with its cases and records each one's outcome where the test has just seen it. Nothing
is written unless the environment names a file (`make results` does): then each record is a line of JSON in it, and
`python -m tests.cluster.results FILE` makes the document of them; `--modules` prints the modules that declare tables.
`tests/cluster_room/test_results.py` compares the cases of the document with those declared, so that neither is
forgotten.
"""

import importlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from cluster import versions

DOCUMENT: Final = Path(__file__).parents[2] / "docs/results.md"
FILE_VARIABLE: Final = "AUTOTLS_RESULTS"
_HEAD: Final = """# What was seen on the real cluster

Written by `make results` from runs of the tests in [tests/cluster/](../tests/cluster/), with Kubernetes {kubernetes};
do not edit. Each line is an assertion of a test: had it been otherwise, the test had failed. Only times are not: they
are what the last run of a table measured (`MODULES=…` runs some and keeps the others).
"""
_COLUMNS: Final = ("case", "path", "outcome", "evidence")
_BETWEEN_PATHS: Final = "; "


@dataclass(frozen=True, slots=True)
class Row:
    """One case on one path, and what came of it. `evidence` says what was looked at, with its numbers."""

    table: str
    case: str
    path: str
    outcome: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Table:
    """The cases of one test module, as (case, path). A case that knows no paths has the path "-"."""

    title: str
    cases: tuple[tuple[str, str], ...]

    def record(self, case: str, path: str, outcome: str, evidence: str) -> None:
        """Keeps what a test has just seen. The case must be a declared one."""
        assert (case, path) in self.cases, f"{(case, path)} is not declared in the table {self.title!r}"
        if file := os.environ.get(FILE_VARIABLE):
            with Path(file).open("a") as lines:
                lines.write(json.dumps(asdict(Row(self.title, case, path, outcome, evidence))) + "\n")


def modules() -> dict[Path, tuple[Table, ...]]:
    """The test modules beside this one that declare tables, with their tables."""
    found: dict[Path, tuple[Table, ...]] = {}
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        values = vars(importlib.import_module(f"tests.cluster.{path.stem}")).values()
        if tables := tuple(value for value in values if isinstance(value, Table)):
            found[path] = tables
    return found


def declared() -> tuple[Table, ...]:
    """Every table of theirs."""
    return tuple(table for tables in modules().values() for table in tables)


def render(tables: Iterable[Table], rows: Iterable[Row]) -> str:
    """The document. Raises AssertionError when a declared case has no row."""
    last = {(row.table, row.case, row.path): row for row in rows}
    parts = [_HEAD.format(kubernetes=versions.KUBERNETES)]
    for table in tables:
        missing = [case for case in table.cases if (table.title, *case) not in last]
        assert not missing, f"{table.title}: nothing was recorded of {missing}"
        parts.append(f"\n## {table.title}\n\n{_line(_COLUMNS)}\n{_line(['---'] * len(_COLUMNS))}\n")
        parts.extend(f"{_line(each)}\n" for each in _merged(last[table.title, *case] for case in table.cases))
    return "".join(parts)


def _merged(rows: Iterable[Row]) -> Iterator[tuple[str, str, str, str]]:
    """One line for the paths on which a case came out the same way."""
    paths: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        paths.setdefault((row.case, row.outcome, row.evidence), []).append(row.path)
    for (case, outcome, evidence), found in paths.items():
        yield case, _BETWEEN_PATHS.join(found), outcome, evidence


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def rows_of(document: str) -> list[Row]:
    """What a document says, a row for each path."""
    title, found = "", list[Row]()
    for line in document.splitlines():
        if line.startswith("## "):
            title = line.removeprefix("## ")
        elif line.startswith("| ") and not line.startswith(("| case |", "| --- |")):
            cells = line.removeprefix("| ").removesuffix(" |").split(" | ")
            case, paths, outcome, evidence = (cell.replace("\\|", "|") for cell in cells)
            found.extend(Row(title, case, path, outcome, evidence) for path in paths.split(_BETWEEN_PATHS))
    return found


def main() -> None:
    if sys.argv[1] == "--modules":
        print(*modules())
        return
    new = [Row(**json.loads(line)) for line in Path(sys.argv[1]).read_text().splitlines()]
    # Tables of modules that did not run stay as they are; of those that did, every case must be new.
    ran = {row.table for row in new}
    old = [row for row in rows_of(DOCUMENT.read_text()) if row.table not in ran]
    DOCUMENT.write_text(render(declared(), [*old, *new]))


if __name__ == "__main__":
    # By its own name, so that `Table` is the one that the test modules have.
    importlib.import_module("tests.cluster.results").main()
