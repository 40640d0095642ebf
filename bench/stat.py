"""What `autotls stat` over a hundred pods costs: wall time beyond the window, and CPU of the command.

    python -m bench.stat [--pods 100] [--rounds 3]

The command runs as people run it, against an API server of our own on the loopback (HTTPS) that lists the pods and
answers for their proxies, each with an exposition of about 70 kB. The server needs CPU of its own on the same machine,
which a cluster's would not take from the command. Baseline: the same command with an option that makes it end after
its imports and the connection, `autotls version`.
"""

import base64
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from bench.budget import Line, report
from bench.certificates import write_serving_pair
from bench.options import options
from bench.stat_server import WINDOW_S, exposition

WALL_BUDGET_S: Final = 2.5
CPU_BUDGET_S: Final = 1.5


def kubeconfig(folder: Path) -> Path:
    path = folder / "kubeconfig"
    authority = base64.b64encode((folder / "tls.crt").read_bytes()).decode()
    server = f"https://127.0.0.1:{(folder / 'port').read_text()}"
    path.write_text(
        json.dumps(
            {
                "clusters": [{"name": "x", "cluster": {"server": server, "certificate-authority-data": authority}}],
                "users": [{"name": "x", "user": {"token": "none"}}],
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x", "namespace": "shop"}}],
                "current-context": "x",
            }
        )
    )
    return path


def timed(*arguments: str) -> tuple[float, float, str]:
    """Wall seconds, CPU seconds and output of the command. Raises CalledProcessError."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    argv = [sys.executable, "-m", "cli.main", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def main() -> None:
    given = options(__doc__, pods=100, rounds=3)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        write_serving_pair(folder)
        argv = [sys.executable, "-m", "bench.stat_server", str(folder), str(given.pods)]
        with subprocess.Popen(argv, env=os.environ) as server:
            try:
                measure(folder, server, given.rounds, given.pods)
            finally:
                server.kill()


def measure(folder: Path, server: "subprocess.Popen[bytes]", rounds: int, pods: int) -> None:
    while not (folder / "port").exists():
        if server.poll() is not None:
            raise SystemExit("the API server of the benchmark ended")
        time.sleep(0.1)
    flag = f"--kubeconfig={kubeconfig(folder)}"
    walls: list[float] = []
    cpus: list[float] = []
    bases: list[float] = []
    for _ in range(rounds):
        wall, cpu, output = timed("stat", "deploy", "-A", f"-t{WINDOW_S}s", flag)
        assert output.count("100.00%*") == pods // 2, output
        walls.append(wall - WINDOW_S)
        cpus.append(cpu)
        bases.append(timed("version", flag)[1])
    size = len(exposition(0, 1, pods)) / 1000
    report(
        Line(
            f"stat over {pods} pods, {size:.0f} kB each: wall beyond the window",
            statistics.median(walls),
            "s",
            WALL_BUDGET_S,
        ),
        Line(
            "  CPU of the command",
            statistics.median(cpus),
            "s",
            CPU_BUDGET_S,
            statistics.median(bases),
            "autotls version",
        ),
    )


if __name__ == "__main__":
    main()
