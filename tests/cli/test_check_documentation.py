"""docs/checks.md names every check, and no other."""

import re
from pathlib import Path

from cli.checks.runner import BEFORE_INSTALLING, INSTALLED

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "checks.md").read_text()


def test_every_check_is_documented_under_its_section() -> None:
    sections = [part.partition("\n") for part in TEXT.split("\n## ")[1:]]
    documented = {
        title.partition(" (")[0]: set(re.findall(r"`([a-z-]+)`", "".join(row.split("|")[1] for row in rows)))
        for title, _, body in sections
        if (rows := [line for line in body.splitlines() if line.startswith("| `")])
    }
    registered = {
        section.title: {check.id for check in section.checks} - ({"api-reachable"} if section in INSTALLED else set())
        for section in (*BEFORE_INSTALLING, *INSTALLED)
    }
    assert documented == registered


def test_no_two_checks_share_an_id() -> None:
    for sections in (BEFORE_INSTALLING, INSTALLED):
        ids = [check.id for section in sections for check in section.checks]
        assert len(ids) == len(set(ids))
