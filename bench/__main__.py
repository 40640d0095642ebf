"""`python -m bench NAME...`: runs the modules of bench/ one after the other, then prints one table of all budgets.

Each module is a process of its own, ended after MODULE_S. A missed budget is printed and no failure; a module that
fails is, after the others have run.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from bench.budget import COLLECT, collected, table

MODULE_S: Final = 900


def run(name: str, lines: Path) -> str:
    """Why the module did not finish; empty when it did."""
    print(f"== bench.{name}", flush=True)
    started = time.monotonic()
    module = subprocess.Popen([sys.executable, "-m", f"bench.{name}"], env={**os.environ, COLLECT: str(lines)})
    try:
        code = module.wait(MODULE_S)
    except subprocess.TimeoutExpired:
        # As Ctrl-C would, so that it ends what it started.
        module.send_signal(signal.SIGINT)
        module.wait()
        return f"ended after {MODULE_S} s"
    print(f"took {time.monotonic() - started:.0f} s\n", flush=True)
    return f"exit code {code}" if code else ""


def main(modules: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "lines"
        lines.touch()
        failed = {name: reason for name in modules if (reason := run(name, lines))}
        print(f"== budgets (load average {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores)")
        print(table(collected(lines)))
    for name, reason in failed.items():
        print(f"bench.{name} did not finish: {reason}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
