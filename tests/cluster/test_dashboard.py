"""`autotls dashboard` over the sample application of `make up`."""

import os
import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Final

import pytest

from mesh import names
from tests.cluster.kubectl import Space, eventually, run_kubectl
from tests.fixtures_cluster import RunningCluster

pytestmark = pytest.mark.cluster

SAMPLE = "sample"
_TIMEOUT_S: Final = 300


class Visitor:
    """A browser without a window, let in by the key of the printed address."""

    def __init__(self, address: str) -> None:
        self._base = address.partition("/?")[0]
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        self._opener.open(address, timeout=_TIMEOUT_S).close()

    def text(self, path: str) -> str:
        with self._opener.open(self._base + path, timeout=_TIMEOUT_S) as answer:
            return answer.read().decode()

    def first_event(self, path: str, name: str) -> str:
        """The data of the first Server-Sent Event of that name."""
        with self._opener.open(self._base + path, timeout=_TIMEOUT_S) as answer:
            while line := answer.readline().decode():
                if line == f"event: {name}\n":
                    return answer.readline().decode()
        raise AssertionError("the stream ended")


@pytest.fixture(scope="module")
def visitor(cluster: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    """Somebody at the page of a running `autotls dashboard`, which afterwards ends by Ctrl-C."""
    errors = tmp_path_factory.mktemp("dashboard") / "stderr"
    with errors.open("wb") as log:
        process = subprocess.Popen(
            [str(cluster.folder.bin / "autotls"), "dashboard", "--no-browser"],
            env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, Path(errors).read_text()
        yield Visitor(address)
        process.send_signal(signal.SIGINT)
        assert process.wait(300) == 0, Path(errors).read_text()
    finally:
        process.kill()
        process.wait()


def test_overview_and_workloads_show_the_sample_at_full_mutual_tls(visitor: Visitor) -> None:
    def shown() -> bool:
        row = re.search(r'<tr id="w-sample/deployment/web">.*?</tr>', visitor.text("/workloads"), re.DOTALL)
        return row is not None and "2/2" in row.group() and "100.00%" in row.group()

    eventually(shown, "web is shown at 100 % with both of its pods")
    assert 'id="ns-sample"' in visitor.text("/")
    # Each page is drawn from the newest look, in which a proxy may have been too slow to answer.
    edge = 'id="e-sample/deployment/client--sample/deployment/web"'
    eventually(lambda: edge in visitor.text("/topology?namespace=sample"), "the edge from client to web")
    wanted = ("spiffe://cluster.local/ns/sample/sa/web", "autotls root", "autotls issuer")
    eventually(lambda: all(each in visitor.text("/certificates") for each in wanted), f"certificates: {wanted}")


def test_tap_delivers_what_the_sample_asks(visitor: Visitor) -> None:
    entry = visitor.first_event(f"/tap/stream?namespace={SAMPLE}&workload=deploy/web&tls=true", "entry")
    assert '"source": "sample/deployment/client"' in entry
    assert '"tls": "true"' in entry


def test_findings_are_those_of_check(visitor: Visitor) -> None:
    assert 'id="check-ca-leader"' in visitor.text("/findings/content")


def test_no_pod_reaches_the_pages(cluster: RunningCluster) -> None:
    control_plane = Space(cluster, names.DEFAULT_CONTROL_PLANE_NAMESPACE)
    [pod] = control_plane.pods("app.kubernetes.io/component=dashboard")

    def asked(port: int, path: str) -> "subprocess.CompletedProcess[str]":
        url = f"http://{pod['status']['podIP']}:{port}{path}"
        curl = ("curl", "--silent", "--fail", "--max-time", "120", url)
        return run_kubectl(cluster, "exec", f"--namespace={SAMPLE}", "deploy/client", "--container=client", "--", *curl)

    assert asked(names.HEALTH_PORT, "/healthz").stdout == "ok\n"
    refused = asked(names.DASHBOARD_PORT, "/")
    assert refused.returncode != 0 and refused.stdout == ""
