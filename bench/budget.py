"""A budget's line: what was measured, the baseline of the same run, and the verdict.

A module of bench/ prints its details as it likes and ends with `report(Line(...), ...)`, which prints its lines as a
table. `python -m bench` runs several modules and prints the lines of all of them as one table at the end.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

# A file that `report` appends to, one JSON object a line; `python -m bench` sets it.
COLLECT: Final = "AUTOTLS_BENCH_LINES"
_HEAD: Final = ("WHAT", "VALUE", "BASELINE", "RATIO", "BUDGET", "VERDICT")


@dataclass(frozen=True, slots=True)
class Line:
    """One figure. `value` and `baseline` are in `unit`; `budget` too, or a multiple of the baseline if `relative`.

    `at_least`: less than the budget is the miss. Without a budget the line only informs.
    """

    what: str
    value: float
    unit: str
    budget: float | None = None
    baseline: float | None = None
    against: str = ""
    relative: bool = False
    at_least: bool = False

    @property
    def ratio(self) -> float | None:
        return self.value / self.baseline if self.baseline else None

    @property
    def verdict(self) -> str:
        judged = self.ratio if self.relative else self.value
        if self.budget is None or judged is None:
            return ""
        if self.at_least:
            return "ok" if judged >= self.budget else "BELOW"
        return "ok" if judged <= self.budget else "OVER"

    def cells(self) -> tuple[str, ...]:
        budget = ""
        if self.budget is not None:
            budget = f"{'>=' if self.at_least else '<='} {self.budget:g} {'x' if self.relative else self.unit}".rstrip()
        baseline = f"{_number(self.baseline)} {self.unit} ({self.against})" if self.baseline is not None else ""
        ratio = f"{self.ratio:.2f}" if self.ratio is not None else ""
        return self.what, f"{_number(self.value)} {self.unit}".rstrip(), baseline, ratio, budget, self.verdict


def _number(value: float) -> str:
    """About three digits that mean something."""
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def table(lines: Iterable[Line]) -> str:
    rows: list[Sequence[str]] = [_HEAD, *(line.cells() for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def report(*lines: Line) -> None:
    """Prints `lines`; a missed budget is printed and nothing more, because budgets never decide."""
    print(table(lines), flush=True)
    if path := os.environ.get(COLLECT):
        with Path(path).open("a") as file:
            file.writelines(json.dumps(asdict(line)) + "\n" for line in lines)


def collected(path: Path) -> list[Line]:
    """What `report` appended to `path`."""
    return [Line(**json.loads(text)) for text in path.read_text().splitlines()]
