"""A real API server with the chart installed by helm: no node, so pods stay pending, which is all that is needed."""

import asyncio
import base64
import json
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from ca.secret import Manifest
from cluster import apiserver
from cluster.apiserver import ApiServer
from kube.client import Api, connect
from mesh import names
from tests.chart.chart import CHART, NAMESPACE, helm
from tests.chart.objects import LABELS, SHOP, config_map, registration, secret

DEADLINE_S: Final = 240.0
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
        token = self.api.kubectl("create", "token", service_account, "--namespace", NAMESPACE, "--duration=24h").strip()
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


# One right of each ServiceAccount, of the last binding that gives it any.
RIGHTS: Final = (
    (names.CA, "patch", "secrets"),
    (names.WEBHOOK, "list", "namespaces"),
    (names.DISCOVERY, "list", "pods"),
    (names.DASHBOARD, "list", "pods"),
)


def may(api: ApiServer, service_account: str, verb: str, resource: str) -> bool:
    """Whether that ServiceAccount may do that in every namespace."""
    who = f"--as=system:serviceaccount:{NAMESPACE}:{service_account}"
    return api.kubectl("auth", "can-i", verb, resource, "--all-namespaces", who, check=False).strip() == "yes"


@contextmanager
def release(folder: Path) -> Iterator[Installed]:
    """An API server of its own with the release `autotls`."""
    with apiserver.start(folder, controllers=True) as api:
        api.kubectl("create", "-f", "-", stdin=json.dumps(RESTRICTED_NAMESPACE))
        cluster = Installed(api, folder)
        cluster.helm("install", "autotls", str(CHART))
        # The API server's authorizer learns of new bindings by a watch of its own.
        for account, verb, resource in RIGHTS:
            eventually(lambda a=account, v=verb, r=resource: may(api, a, v, r), f"{account} may {verb} {resource}")
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


@pytest.fixture(scope="session")
def enforced(installed: Installed) -> Installed:
    """With a namespace, with objects that are not ours, and with the policies in force."""
    installed.api.kubectl("create", "namespace", SHOP)
    for item in (
        secret("autotls-identity-foreign", labels={}),
        secret("autotls-identity-other-mesh", labels={**LABELS, names.CONTROL_PLANE_LABEL: "elsewhere"}),
        secret("payments-db", labels={}, type="Opaque"),
        config_map(namespace="default", labels={}),
        secret(names.ROOT_SECRET, namespace=NAMESPACE),
    ):
        installed.api.kubectl("create", "-f", "-", stdin=json.dumps(item))
    # The API server takes a new policy up within moments, not at once: each must refuse before a test counts on it.
    for item, policy in (
        (secret("probe"), "autotls-ca-secrets"),
        (config_map(name="probe"), "autotls-ca-configmaps"),
        (registration("probe"), "autotls-ca-registrations"),
    ):
        eventually(lambda item=item, policy=policy: policy in refusal(installed, item), f"policy {policy} in force")
    return installed


def refusal(installed: Installed, item: Manifest) -> str:
    argv = ("create", "--dry-run=server", "-f", "-", f"--as=system:serviceaccount:{NAMESPACE}:{names.CA}")
    try:
        installed.api.kubectl(*argv, stdin=json.dumps(item))
    except subprocess.CalledProcessError as error:
        return str(error.stderr)
    return ""


@pytest.fixture
async def ca(enforced: Installed) -> AsyncIterator[Api]:
    async with connect(kubeconfig=enforced.kubeconfig_of(names.CA)) as api:
        yield api


@pytest.fixture
async def admin(installed: Installed) -> AsyncIterator[Api]:
    async with connect(kubeconfig=installed.admin_kubeconfig) as api:
        yield api
