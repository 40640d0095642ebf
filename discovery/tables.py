"""Name → version tables that a thousand proxies share as long as they hold the same.

A table is never changed, only followed by another. The step from one to the next is remembered, so proxies that held
the same and are told the same hold the same object again; a table of 400 names is 18 kB, and each proxy needs three.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

Table = Mapping[str, str]
EMPTY: Final[Table] = {}
# Steps remembered; each keeps two tables alive.
_STEPS: Final = 256


class Tables:
    """One per process."""

    def __init__(self) -> None:
        self._steps: OrderedDict[tuple[int, frozenset[tuple[str, str | None]]], tuple[Table, Table]] = OrderedDict()
        self._equal: OrderedDict[frozenset[tuple[str, str]], Table] = OrderedDict()

    def after(self, table: Table, changes: Mapping[str, str | None]) -> Table:
        """`table` with `changes` made; None takes a name out."""
        if not changes:
            return table
        step = (id(table), frozenset(changes.items()))
        known = self._steps.get(step)
        if known is not None:
            # The entry holds its table, so the id is still that table's.
            return known[1]
        fresh = dict(table)
        for name, version in changes.items():
            if version is None:
                fresh.pop(name, None)
            else:
                fresh[name] = version
        self._steps[step] = (table, fresh)
        if len(self._steps) > _STEPS:
            self._steps.popitem(last=False)
        return fresh

    def shared(self, table: Table) -> Table:
        """A table equal to `table` that others hold already, if there is one; costs as much as the table is long."""
        key = frozenset(table.items())
        found = self._equal.setdefault(key, table)
        self._equal.move_to_end(key)
        if len(self._equal) > _STEPS // 16:
            self._equal.popitem(last=False)
        return found


TABLES: Final = Tables()
