"""Aligned columns. Pure."""

from collections.abc import Collection, Sequence
from typing import Final

from cli.output import harmless

# As kubectl separates columns.
_GAP: Final = "   "
# Names of hosts and workloads may come from anybody; a wide cell would push the others off the screen.
WIDEST: Final = 200


def columns(header: Sequence[str], rows: Sequence[Sequence[str]], *, text: Collection[str]) -> list[str]:
    """Lines: the columns whose title is in `text` flush left, the others (numbers) flush right; every cell harmless."""
    cells = [list(header), *([harmless(cell, WIDEST) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    left = [title in text for title in header]

    def line(row: Sequence[str]) -> str:
        padded = (cell.ljust(widths[i]) if left[i] else cell.rjust(widths[i]) for i, cell in enumerate(row))
        return _GAP.join(padded).rstrip()

    return [line(row) for row in cells]
