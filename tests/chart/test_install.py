"""Install, upgrade and uninstall by helm on a real API server: what is accepted, what survives, what is left."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mesh import names
from tests.chart.chart import CHART, NAMESPACE, template
from tests.chart.conftest import Installed, eventually, release

pytestmark = pytest.mark.apiserver

BUNDLE = base64.b64encode(b"-----BEGIN CERTIFICATE-----\nnot one, but nobody is called here\n").decode()


@pytest.fixture
def removable(tmp_path: Path) -> Iterator[Installed]:
    """A release of its own, for tests that take it away."""
    with release(tmp_path) as cluster:
        yield cluster


def get(cluster: Installed, *arguments: str) -> Any:
    return json.loads(cluster.api.kubectl("get", "-o", "json", *arguments))


def test_server_side_dry_run_accepts_every_object_without_a_warning(installed: Installed) -> None:
    """Strict field validation: a misspelt or misplaced field would be an error."""
    rendered = template()
    done = installed.api.kubectl(
        "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-",
        stdin=rendered,
    )  # fmt: skip
    assert done.count("serverside-applied (server dry run)") == rendered.count("\nkind: ")


def test_expressions_of_the_policies_have_the_right_types(installed: Installed) -> None:
    """The controller manager checks each expression against the schema of what it is applied to."""

    def checked() -> bool:
        items = get(installed, "validatingadmissionpolicies")["items"]
        return len(items) == 3 and all(
            item.get("status", {}).get("observedGeneration") == item["metadata"]["generation"] for item in items
        )

    eventually(checked, "type checking of the policies")
    warnings = {
        item["metadata"]["name"]: item["status"]["typeChecking"].get("expressionWarnings", [])
        for item in get(installed, "validatingadmissionpolicies")["items"]
    }
    assert warnings == {"autotls-ca-secrets": [], "autotls-ca-configmaps": [], "autotls-ca-registrations": []}


def test_pods_of_every_deployment_pass_restricted_pod_security(installed: Installed) -> None:
    def pods() -> int:
        return len(get(installed, "pods", "-n", NAMESPACE)["items"])

    eventually(lambda: pods() == 7, "two pods of each Deployment, and one of the dashboard")

    def statuses() -> list[dict[str, Any]]:
        return [item["status"] for item in get(installed, "deployments", "-n", NAMESPACE)["items"]]

    # The controller reports a little later than it works.
    eventually(lambda: sum(status.get("replicas", 0) for status in statuses()) == 7, "the Deployments' own count")
    failures = [c for status in statuses() for c in status["conditions"] if c["type"] == "ReplicaFailure"]
    assert failures == []


def test_upgrade_keeps_ca_bundle_then_uninstall_leaves_no_registration_and_keeps_the_root(removable: Installed) -> None:
    upgrade_keeps_ca_bundle_and_adds_no_entry(removable)
    uninstall_leaves_no_registration_and_keeps_the_root(removable)


def upgrade_keeps_ca_bundle_and_adds_no_entry(removable: Installed) -> None:
    before = get(removable, "mutatingwebhookconfiguration", names.REGISTRATION)
    patch = [
        {"op": "add", "path": f"/webhooks/{index}/clientConfig/caBundle", "value": BUNDLE}
        for index in range(len(before["webhooks"]))
    ]
    removable.api.kubectl(
        "patch", "mutatingwebhookconfiguration", names.REGISTRATION, "--type=json", f"-p={json.dumps(patch)}",
        f"--field-manager={names.CA_FIELD_MANAGER}",
    )  # fmt: skip
    removable.helm("upgrade", "autotls", str(CHART), "--set=webhook.timeoutSeconds=3,mode=strict")
    after = get(removable, "mutatingwebhookconfiguration", names.REGISTRATION)
    assert [webhook["name"] for webhook in after["webhooks"]] == [webhook["name"] for webhook in before["webhooks"]]
    assert {webhook["timeoutSeconds"] for webhook in after["webhooks"]} == {3}
    assert {webhook["clientConfig"]["caBundle"] for webhook in after["webhooks"]} == {BUNDLE}


def uninstall_leaves_no_registration_and_keeps_the_root(removable: Installed) -> None:
    optional = get(removable, "mutatingwebhookconfiguration", names.REGISTRATION)
    template_map = get(removable, "configmap", names.STRICT_REGISTRATION_TEMPLATE, "-n", NAMESPACE)
    strict = json.loads(template_map["data"]["registration.json"])
    strict["metadata"]["ownerReferences"] = [
        {key: optional[key] for key in ("apiVersion", "kind")}
        | {key: optional["metadata"][key] for key in ("name", "uid")}
    ]
    for webhook in strict["webhooks"]:
        webhook["clientConfig"]["caBundle"] = BUNDLE
    removable.api.kubectl("create", "-f", "-", stdin=json.dumps(strict))
    removable.api.kubectl("create", "secret", "generic", names.ROOT_SECRET, "-n", NAMESPACE)

    removable.helm("uninstall", "autotls")

    def registrations() -> list[str]:
        return [item["metadata"]["name"] for item in get(removable, "mutatingwebhookconfigurations")["items"]]

    eventually(lambda: registrations() == [], "the garbage collector to take the strict registration")
    assert [item["metadata"]["name"] for item in get(removable, "secrets", "-n", NAMESPACE)["items"]] == [
        names.ROOT_SECRET
    ]
    for kind in ("validatingadmissionpolicies", "validatingadmissionpolicybindings"):
        assert get(removable, kind)["items"] == []
    rbac = get(removable, "clusterroles,clusterrolebindings", "-l", "app.kubernetes.io/name=autotls")
    assert rbac["items"] == []


def test_second_release_is_refused_in_words_that_name_the_first(installed: Installed) -> None:
    installed.api.kubectl("create", "namespace", "other")
    with pytest.raises(AssertionError, match=r"(?s)exists and cannot be imported.*autotls"):
        installed.helm("install", "second", str(CHART), "--namespace=other")


def test_notes_say_what_to_do_next_and_warn_of_what_is_missing(installed: Installed) -> None:
    notes = installed.helm("get", "notes", "autotls")
    assert f"kubectl -n {NAMESPACE} rollout status deploy/{names.CA} deploy/{names.WEBHOOK}" in notes
    assert f"{names.INJECT_LABEL}={names.INJECT_ENABLED}" in notes
    assert f"Never injected: kube-system, kube-node-lease, {NAMESPACE}." in notes
    assert "WARNING" not in notes

    values = "--set=admissionPolicy.enabled=false,excludedNamespaces={logging,backup}"
    changed = installed.helm("upgrade", "autotls", str(CHART), "--dry-run=server", values).split("NOTES:")[1]
    assert f"{NAMESPACE}, backup, logging." in changed
    assert "WARNING: there is no ValidatingAdmissionPolicy" in changed
