"""Long commands: their output is kept, their failures are told, and they never outlive us."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster import processes, progress
from cluster.errors import BuildError

ROOT = Path(__file__).resolve().parent.parent.parent


def test_output_goes_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "one.log"
    progress.run_logged(["sh", "-c", "echo out; echo err >&2"], title="one", log=log, hint="")
    assert sorted(log.read_text().split()) == ["err", "out"]


def test_a_failure_comes_with_its_last_lines_and_the_log(tmp_path: Path) -> None:
    log = tmp_path / "one.log"
    with pytest.raises(BuildError, match=r"one failed \(exit code 3\):\nno such module") as caught:
        progress.run_logged(["sh", "-c", "echo no such module; exit 3"], title="one", log=log, hint="look around")
    assert caught.value.hint == f"look around; all output: {log}"


def test_a_command_ends_with_the_run_that_started_it(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    program = (
        "from pathlib import Path; from cluster import progress;"
        f"progress.run_logged(['sh', '-c', 'echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 600'],"
        f" title='one', log=Path('{tmp_path}/log'), hint='')"
    )
    run = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    deadline = time.monotonic() + 180
    while not pid_file.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    child = int(pid_file.read_text())
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    while processes.start_ticks(child) is not None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes.start_ticks(child) is None
