"""A running `autotls tap`, and the replicas of discovery that it goes through."""

import json
import subprocess
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.cluster.kubectl import eventually
from tests.fixtures_cluster import RunningCluster

COMPONENT: Final = "app.kubernetes.io/component=discovery"
Entry = dict[str, Any]


class Tap:
    """A running `autotls tap -o json`."""

    def __init__(self, process: "subprocess.Popen[str]", out: Path, err: Path) -> None:
        self.process, self._out, self._err = process, out, err

    def entries(self) -> list[Entry]:
        # The last line may be half written.
        return [json.loads(line) for line in self._out.read_text().split("\n")[:-1]]

    def said(self) -> str:
        return self._err.read_text()

    def find(self, what: str, ask: Callable[[], object], **wanted: object) -> Entry:
        """What is told of it. It is asked for until then: on a busy machine a handshake may take longer than a second,
        which is told as plaintext."""

        def found() -> Entry | None:
            ask()
            return next((e for e in self.entries() if all(e[key] == value for key, value in wanted.items())), None)

        return eventually(found, lambda: f"{what} ({wanted}) among {self.entries()[-5:]}; {self.said()}")


@contextmanager
def tap(cluster: RunningCluster, *arguments: str, proxies: int) -> Generator[Tap]:
    """Once `proxies` of them are tapped through every replica."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        with out.open("w") as stdout, err.open("w") as stderr:
            process = subprocess.Popen(
                [cluster.folder.bin / "autotls", "tap", f"--kubeconfig={cluster.kubeconfig}", "-o", "json", *arguments],
                stdout=stdout, stderr=stderr, text=True,
            )  # fmt: skip
        found = Tap(process, out, err)
        try:
            replicas = len(discovery_pods(cluster))
            ready = f"tapping {proxies} proxies of "
            eventually(
                lambda: any(ready in line and f"through {replicas} " in line for line in found.said().splitlines()),
                lambda: f"{ready}: {found.said()}",
            )
            yield found
        finally:
            process.kill()
            process.wait(120)


def discovery_pods(cluster: RunningCluster) -> list[Any]:
    return [
        pod for pod in cluster.get("pods", "--namespace=autotls", f"--selector={COMPONENT}")["items"]
        if "deletionTimestamp" not in pod["metadata"]
    ]  # fmt: skip
