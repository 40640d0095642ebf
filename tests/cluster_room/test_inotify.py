"""The machine's inotify limit while clusters come and go."""

from pathlib import Path

import pytest

from cluster import inotify
from cluster.layout import ClusterName, RunFolder


@pytest.fixture
def limit(tmp_path: Path) -> Path:
    path = tmp_path / "max_user_instances"
    path.write_text("128\n")
    return path


def folder(tmp_path: Path, name: str) -> RunFolder:
    return RunFolder(ClusterName(name), tmp_path / "clusters" / name)


def test_the_limit_is_raised_for_the_first_and_put_back_after_the_last(tmp_path: Path, limit: Path) -> None:
    one, two = folder(tmp_path, "one"), folder(tmp_path, "two")
    for each in (one, two, one):
        inotify.raise_limit(each, limit)
        assert int(limit.read_text()) == inotify.NEEDED
    inotify.restore_limit(one, limit)
    assert int(limit.read_text()) == inotify.NEEDED
    inotify.restore_limit(two, limit)
    assert limit.read_text() == "128\n"


def test_a_limit_that_is_high_enough_is_left_alone(tmp_path: Path, limit: Path) -> None:
    limit.write_text("8192\n")
    inotify.raise_limit(folder(tmp_path, "one"), limit)
    assert limit.read_text() == "8192\n"
    inotify.restore_limit(folder(tmp_path, "one"), limit)
    assert limit.read_text() == "8192\n"


def test_a_limit_that_somebody_else_changed_meanwhile_is_theirs(tmp_path: Path, limit: Path) -> None:
    inotify.raise_limit(folder(tmp_path, "one"), limit)
    limit.write_text("4096\n")
    inotify.restore_limit(folder(tmp_path, "one"), limit)
    assert limit.read_text() == "4096\n"


def test_down_without_up_changes_nothing(tmp_path: Path, limit: Path) -> None:
    (tmp_path / "clusters").mkdir()
    inotify.restore_limit(folder(tmp_path, "one"), limit)
    assert limit.read_text() == "128\n"


def test_a_restarted_machine_has_forgotten_the_clusters(
    tmp_path: Path, limit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inotify.raise_limit(folder(tmp_path, "killed-with-the-machine"), limit)
    monkeypatch.setattr(inotify, "boot_id", lambda: "another")
    limit.write_text("128\n")
    inotify.raise_limit(folder(tmp_path, "one"), limit)
    inotify.restore_limit(folder(tmp_path, "one"), limit)
    assert limit.read_text() == "128\n"
