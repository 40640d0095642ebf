"""The real CA with the rights that the chart gives it, under the policies that the chart puts on it.

What it needs and may not would show here: as an object that never comes, and as a 403 in its log.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.layout import REPOSITORY
from mesh import names
from tests.chart.chart import CHART, NAMESPACE
from tests.chart.conftest import DEADLINE_S, Installed, eventually, release

pytestmark = pytest.mark.apiserver

OPTED_IN = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "meshed", "labels": {names.INJECT_LABEL: names.INJECT_ENABLED}},
}
FOREIGN = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": names.identity_secret_name("taken"), "namespace": "meshed"},
    "stringData": {"mine": "not yours"},
}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    with release(tmp_path_factory.mktemp("control-plane")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def ca_log(fresh: Installed) -> Iterator[Path]:
    """The log of a running CA: `python -m ca` with the token of its ServiceAccount and the chart's configuration."""
    config = fresh.folder / "config.yaml"
    config.write_text(get(fresh, "configmap", names.CONFIG_MAP, "-n", NAMESPACE)["data"][names.CONFIG_KEY])
    environment = {
        "PATH": os.environ["PATH"],
        "KUBECONFIG": fresh.kubeconfig_of(names.CA),
        "AUTOTLS_CONFIG": str(config),
        "AUTOTLS_POD_NAME": "autotls-ca-0",
        "AUTOTLS_HEALTH_PORT": "0",
    }
    log = fresh.folder / "ca.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "ca"], cwd=REPOSITORY, env=environment, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        yield log
    finally:
        process.terminate()
        assert process.wait(DEADLINE_S) == 0, log.read_text()


def get(cluster: Installed, *arguments: str) -> Any:
    return json.loads(cluster.api.kubectl("get", "-o", "json", *arguments))


def exists(cluster: Installed, kind: str, name: str, namespace: str) -> bool:
    return bool(cluster.api.kubectl("get", kind, name, "-n", namespace, "--ignore-not-found"))


def webhooks_of(cluster: Installed, registration: str) -> list[dict[str, Any]]:
    """Empty while it is not there: the CA may have started just now."""
    text = cluster.api.kubectl("get", "mutatingwebhookconfiguration", registration, "-o", "json", "--ignore-not-found")
    return json.loads(text)["webhooks"] if text else []


def has_bundle(cluster: Installed, registration: str) -> bool:
    webhooks = webhooks_of(cluster, registration)
    return bool(webhooks) and all(webhook["clientConfig"].get("caBundle") for webhook in webhooks)


def refusals(log: Path) -> list[str]:
    """What the CA was refused. The time of a line may hold any number, so it is left out."""
    said = re.sub(r'"timestamp":"[^"]*"', "", log.read_text())
    return [line for line in said.splitlines() if "orbidden" in line or re.search(r"\b403\b", line)]


def test_ca_makes_all_that_is_its_own_and_is_never_refused(fresh: Installed, ca_log: Path) -> None:
    fresh.api.kubectl("create", "-f", "-", stdin=json.dumps(OPTED_IN))
    fresh.api.kubectl("create", "-f", "-", stdin=json.dumps(FOREIGN))
    fresh.api.kubectl("create", "serviceaccount", "web", "-n", "meshed")
    fresh.api.kubectl("create", "serviceaccount", "taken", "-n", "meshed")

    for kind, name, namespace in (
        ("secret", names.ROOT_SECRET, NAMESPACE),
        ("secret", names.ISSUER_SECRET, NAMESPACE),
        ("secret", names.WEBHOOK_TLS_SECRET, NAMESPACE),
        ("secret", names.DISCOVERY_TLS_SECRET, NAMESPACE),
        ("secret", names.identity_secret_name("web"), "meshed"),
        ("secret", names.identity_secret_name("default"), "meshed"),
        ("configmap", names.TRUST_BUNDLE_CONFIG_MAP, "meshed"),
        ("mutatingwebhookconfiguration", names.STRICT_REGISTRATION, ""),
    ):
        eventually(
            lambda kind=kind, name=name, namespace=namespace: exists(fresh, kind, name, namespace or "default"),
            f"{kind} {name}\n{ca_log.read_text()}",
        )
    for registration in (names.REGISTRATION, names.STRICT_REGISTRATION):
        eventually(lambda name=registration: has_bundle(fresh, name), f"caBundle of {registration}")
    eventually(
        lambda: any(event["type"] == "Warning" for event in get(fresh, "events", "-n", "meshed")["items"]),
        "an Event about the Secret that is not ours",
    )
    assert get(fresh, "secret", FOREIGN["metadata"]["name"], "-n", "meshed")["data"].keys() == {"mine"}
    assert get(fresh, "lease", names.CA_LEASE, "-n", NAMESPACE)["spec"]["holderIdentity"].startswith("autotls-ca-0")

    fresh.api.kubectl("delete", "serviceaccount", "web", "-n", "meshed")
    eventually(
        lambda: not exists(fresh, "secret", names.identity_secret_name("web"), "meshed"),
        "the identity to go with its SA",
    )
    assert refusals(ca_log) == []


def test_strict_registration_is_repaired_after_an_upgrade_of_the_chart(fresh: Installed, ca_log: Path) -> None:
    fresh.helm("upgrade", "autotls", str(CHART), "--set=webhook.timeoutSeconds=2")

    def timeouts() -> set[int]:
        return {webhook["timeoutSeconds"] for webhook in webhooks_of(fresh, names.STRICT_REGISTRATION)}

    eventually(lambda: timeouts() == {2}, "the strict registration to follow the chart's text")
    eventually(lambda: has_bundle(fresh, names.REGISTRATION), "caBundle of the chart's registration")
    assert refusals(ca_log) == []
