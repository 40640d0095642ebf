"""Fixtures for tests against real parts of Kubernetes; `tests/conftest.py` makes them known everywhere.

`apiserver`: a kube-apiserver with etcd, one for each test process (mark such tests `apiserver`).
`cluster`: the running cluster of `make up`, named by CLUSTER (mark such tests `cluster`).
"""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from cluster import apiserver as apiserver_module
from cluster import lifecycle, network
from cluster.apiserver import ApiServer
from cluster.errors import ClusterError
from cluster.layout import DEFAULT_NAME, Cache, ClusterName, RunFolder

# Far above what a busy machine needs: deadlines, not measures.
KUBECTL_S: Final = 600.0
_AWAY_S: Final = 120.0
# What kubectl says when the API server was not there for a moment: nothing was done then, and reading does nothing.
_NEVER_ASKED: Final = ("was refused - did you specify the right host", "net/http: TLS handshake timeout")
_NOT_ANSWERED: Final = ("EOF", "connection reset by peer", "in the time allotted", "etcdserver:", "i/o timeout")


@dataclass(frozen=True, slots=True)
class RunningCluster:
    """The cluster of `make up`, as a test sees it."""

    folder: RunFolder

    @property
    def kubeconfig(self) -> Path:
        return self.folder.kubeconfig

    @property
    def enter_network(self) -> tuple[str, ...]:
        """Command prefix that runs in the node's network namespace, where pods' addresses are reachable."""
        return ("nsenter", f"--net=/run/netns/{self.folder.netns}")

    @property
    def ipv6(self) -> bool:
        """Whether it was made with both families: where the machine has no IPv6, it was not."""
        link = network.current(self.folder)
        assert link, "the cluster runs"
        return link.ipv6

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Standard output of kubectl as the administrator. Fails the test with kubectl's own words."""
        done, end = self.run_kubectl(*arguments, stdin=stdin), time.monotonic() + _AWAY_S
        reads = "get" in arguments[:2]
        while done.returncode and check:
            away = any(words in done.stderr for words in (*_NEVER_ASKED, *(_NOT_ANSWERED if reads else ())))
            if not away or time.monotonic() > end:
                pytest.fail(f"kubectl {' '.join(arguments)}\n{done.stderr}{done.stdout}")
            time.sleep(0.5)
            done = self.run_kubectl(*arguments, stdin=stdin)
        return done.stdout

    def run_kubectl(self, *arguments: str, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
        """kubectl as the administrator, whatever its exit code: for tests of warnings and refusals."""
        argv = [str(self.folder.tools / "kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=KUBECTL_S)

    def get(self, *arguments: str) -> dict[str, Any]:
        """The object or list that `kubectl get … -o json` returns."""
        answer: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "--output=json"))
        return answer

    def apply(self, *objects: dict[str, Any]) -> None:
        """Create or change these objects."""
        self.kubectl("apply", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def image(self, name: str) -> str:
        """The reference under which our image of that name was imported last, such as `testbox`."""
        references: dict[str, str] = json.loads((self.folder.root / "images.json").read_bytes())
        return references[name]


@pytest.fixture(scope="session")
def apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A real API server, without controllers; shared by the session, so use objects of your own namespace."""
    with apiserver_module.start(tmp_path_factory.mktemp("apiserver")) as server:
        yield server


@pytest.fixture(scope="session")
def cluster() -> RunningCluster:
    """The cluster of `make up`. A test that asks for it fails, rather than being skipped, when it does not run."""
    folder = Cache.from_environment().cluster(ClusterName.parse(os.environ.get("CLUSTER") or DEFAULT_NAME))
    try:
        lifecycle.require_running(folder)
    except ClusterError as error:
        pytest.fail(f"{error}; {error.hint}")
    return RunningCluster(folder)
