"""Processes that we started are ended; others that look like them are not."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import processes
from cluster.errors import StartError
from cluster.processes import Process, ProcessTable

FOREVER = [sys.executable, "-c", "import signal; signal.pause()"]
DEAF = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()",
]


@pytest.fixture
def table(tmp_path: Path) -> Iterator[ProcessTable]:
    made = ProcessTable(tmp_path / "processes", tmp_path / "logs")
    yield made
    processes.end(made.all(), grace_s=0)


def test_a_started_process_is_known_to_a_later_run(table: ProcessTable) -> None:
    started = table.start("one", FOREVER)
    again = ProcessTable(table.records, table.logs)
    assert again.get("one") == started
    assert again.all() == (started,)


def test_a_stopped_process_is_gone_and_forgotten(table: ProcessTable) -> None:
    started = table.start("one", FOREVER)
    table.stop("one")
    assert not started.alive()
    assert table.get("one") is None
    assert not list(table.records.iterdir())
    table.stop("one")


def test_a_process_that_ignores_sigterm_is_killed(table: ProcessTable) -> None:
    deaf = table.start("deaf", DEAF)
    table.wait(deaf, lambda: table.tail("deaf") == "deaf", timeout_s=120)
    table.stop("deaf", grace_s=0.1)
    assert not deaf.alive()


def test_a_recycled_pid_is_never_ended(table: ProcessTable) -> None:
    bystander = subprocess.Popen(FOREVER)
    try:
        ticks = processes.start_ticks(bystander.pid)
        assert ticks is not None
        boot = Process("old", bystander.pid, ticks, processes.boot_id())
        assert boot.alive()
        table.records.mkdir()
        for recycled in (
            dataclasses.replace(boot, start_ticks=ticks - 1),
            dataclasses.replace(boot, boot="an earlier one"),
        ):
            (table.records / "old.json").write_text(json.dumps(dataclasses.asdict(recycled)))
            assert table.get("old") is None
            table.stop("old")
            processes.end([recycled], grace_s=0)
            assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_process_that_ends_while_starting_is_reported_with_its_last_words(table: ProcessTable) -> None:
    failing = table.start("failing", ["sh", "-c", "echo no such flag; exit 3"])
    with pytest.raises(StartError, match="failing ended while starting: no such flag") as caught:
        table.wait(failing, lambda: False, timeout_s=120)
    assert str(table.logs / "failing.log") in caught.value.hint


def test_a_program_that_does_not_exist_is_reported(table: ProcessTable) -> None:
    with pytest.raises(StartError, match="ghost cannot be started"):
        table.start("ghost", ["/no/such/program"])


def test_a_process_that_is_never_ready_is_reported(table: ProcessTable) -> None:
    slow = table.start("slow", FOREVER)
    with pytest.raises(StartError, match="slow was not ready"):
        table.wait(slow, lambda: False, timeout_s=0)
    assert slow.alive()


def test_kill_ends_all_that_it_finds(table: ProcessTable) -> None:
    both = [table.start("one", FOREVER), table.start("two", FOREVER)]
    processes.kill(lambda: tuple(process.pid for process in both if process.alive()))
    assert not table.all()


@pytest.mark.parametrize("name", ["plain", "with space", "brackets ) S 1 (", "(sd-pam)"])
def test_the_start_time_is_found_whatever_the_command_is_called(name: str) -> None:
    fields = ["S", *("0" for _ in range(18)), "4711", "0", "0"]
    assert processes.parse_start_ticks(f"12 ({name}) {' '.join(fields)}") == 4711


def test_a_zombie_counts_as_ended() -> None:
    fields = ["Z", *("0" for _ in range(18)), "4711", "0"]
    assert processes.parse_start_ticks(f"12 (sleep) {' '.join(fields)}") is None


def test_a_zombie_whose_other_threads_still_end_holds_its_ports_and_counts_as_alive() -> None:
    fields = ["Z", *("0" for _ in range(16)), "7", "0", "4711", "0"]
    assert processes.parse_start_ticks(f"12 (kube-apiserver) {' '.join(fields)}") == 4711


def test_our_own_start_time_is_readable() -> None:
    assert processes.start_ticks(os.getpid()) is not None
