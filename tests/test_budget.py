from pathlib import Path

import pytest

from bench import budget
from bench.budget import Line


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        pytest.param(Line("x", 10, "ms", 10), "ok", id="at the budget"),
        pytest.param(Line("x", 10.1, "ms", 10), "OVER", id="over it"),
        pytest.param(Line("x", 12, "ms", 1.1, 10, relative=True), "OVER", id="over a multiple of the baseline"),
        pytest.param(Line("x", 10, "ms", 1.1, 10, relative=True), "ok", id="within a multiple of the baseline"),
        pytest.param(Line("x", 49, "", 50, at_least=True), "BELOW", id="less than what must be reached"),
        pytest.param(Line("x", 49, "ms", None, 50), "", id="no budget"),
        pytest.param(Line("x", 49, "ms", 1.1, 0, relative=True), "", id="nothing to compare with"),
    ],
)
def test_verdicts(line: Line, verdict: str) -> None:
    assert line.verdict == verdict


def test_lines_of_several_modules_come_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "lines"
    monkeypatch.setenv(budget.COLLECT, str(file))
    first, second = Line("one", 1.5, "ms", 2), Line("two", 3, "MB", 0.9, 4, "raw", relative=True, at_least=True)
    budget.report(first)
    budget.report(second)
    assert budget.collected(file) == [first, second]
    assert "two" in budget.table([first, second])
