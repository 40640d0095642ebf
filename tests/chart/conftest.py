"""A real API server with the chart installed by helm: no node, so pods stay pending, which is all that is needed."""

import asyncio
import base64
import json
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from cluster import apiserver
from cluster.apiserver import ApiServer
from tests.chart.chart import CHART, NAMESPACE, helm

DEADLINE_S: Final = 60.0
# Deployments' pods are made by the controller manager under this namespace's enforcement: a real check of PSS.
RESTRICTED_NAMESPACE: Final = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
}


@dataclass(frozen=True, slots=True)
class Installed:
    """The cluster with the release `autotls`, and a kubeconfig of the CA's ServiceAccount."""

    api: ApiServer
    folder: Path

    def helm(self, *arguments: str) -> str:
        """Run helm as the administrator. Raises CalledProcessError with its stderr."""
        argv = [str(helm()), f"--kubeconfig={self.api.kubeconfig}", f"--namespace={NAMESPACE}", *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def admin_kubeconfig(self) -> str:
        return str(self.api.kubeconfig)

    def kubeconfig_of(self, service_account: str) -> str:
        """With a token of that ServiceAccount, as its pods have one: RBAC and policies see who they would see."""
        path = self.folder / f"{service_account}.kubeconfig"
        if not path.exists():
            path.touch(0o600)
            path.write_text(json.dumps(self._kubeconfig(service_account)))
        return str(path)

    def _kubeconfig(self, service_account: str) -> dict[str, object]:
        token = self.api.kubectl("create", "token", service_account, "--namespace", NAMESPACE).strip()
        authority = base64.b64encode(self.api.authority.read_bytes()).decode()
        cluster = {"server": self.api.url, "certificate-authority-data": authority}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }


@contextmanager
def release(folder: Path) -> Iterator[Installed]:
    """An API server of its own with the release `autotls`."""
    with apiserver.start(folder, controllers=True) as api:
        api.kubectl("create", "-f", "-", stdin=json.dumps(RESTRICTED_NAMESPACE))
        cluster = Installed(api, folder)
        cluster.helm("install", "autotls", str(CHART))
        yield cluster


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    with release(tmp_path_factory.mktemp("chart")) as cluster:
        yield cluster


def eventually(check: Callable[[], bool], what: str) -> None:
    """Waits until `check` holds. A deadline, not a measure: it is far above what a busy machine needs."""
    end = time.monotonic() + DEADLINE_S
    while not check():
        assert time.monotonic() < end, f"not within {DEADLINE_S:.0f} s: {what}"
        time.sleep(0.1)


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    """The same for a check that awaits. Raises TimeoutError at the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if await check():
                return
            await asyncio.sleep(0.05)
