"""Objects of ours that somebody spoils are repaired, those that are not ours are left alone, and refusals end there."""

import base64
import json
import ssl
import subprocess
import time
from pathlib import Path
from typing import Final

import pytest

from mesh import names
from tests.cluster.kubectl import OPTED_IN, Object, eventually, space
from tests.cluster.meshed import Mesh, restarts
from tests.cluster.plane import Plane, a_pod, an_account, save_identity

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("steady")]

LOOKING_S: Final = 15.0
"""How long something is watched that must not happen."""
BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----\n"


def test_deleted_secret_is_made_again(mesh: Mesh) -> None:
    old = mesh.secret("server")
    assert old is not None
    mesh.space.kubectl("delete", "secret", old["metadata"]["name"])

    def anew() -> bool:
        found = mesh.secret("server")
        return found is not None and found["metadata"]["uid"] != old["metadata"]["uid"]

    eventually(anew, "another Secret")


@pytest.mark.parametrize(
    "patch",
    [
        {"data": {names.TLS_CERT_KEY: base64.b64encode(b"nothing").decode()}},
        {"data": {names.TLS_PRIVATE_KEY_KEY: base64.b64encode(b"nothing").decode()}},
        {"data": {names.TRUST_BUNDLE_KEY: None}},
    ],
    ids=["certificate is no certificate", "key is no key", "bundle is gone"],
)
def test_spoiled_secret_is_repaired(mesh: Mesh, patch: Object, tmp_path: Path) -> None:
    name = names.identity_secret_name("server")
    mesh.space.kubectl("patch", "secret", name, f"--patch={json.dumps(patch)}")

    def repaired() -> bool:
        found = mesh.secret("server")
        if found is None or set(found["data"]) != {"tls.crt", "tls.key", "ca.crt"}:
            return False
        folder = save_identity(found, tmp_path / "server")
        chain = folder / "tls.crt"
        argv = ["openssl", "verify", "-CAfile", str(folder / "ca.crt"), "-untrusted", str(chain), str(chain)]
        keys = [["x509", "-in", str(chain), "-noout", "-pubkey"], ["pkey", "-in", str(folder / "tls.key"), "-pubout"]]
        public = [subprocess.run(["openssl", *key], capture_output=True, check=False).stdout for key in keys]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0 and public[0] == public[1]

    eventually(repaired, "a good Secret again")
    mesh.wait_served(mesh.get("server"))


def test_foreign_secret_is_left_alone_and_told(mesh: Mesh) -> None:
    name = names.identity_secret_name("stranger")
    labels = {names.MANAGED_BY_LABEL: "somebody-else"}
    foreign = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": labels}}
    mesh.space.apply({**foreign, "stringData": {"password": "mine"}})
    before = mesh.space.get("secret", name)
    mesh.space.apply(an_account("stranger"))
    pod = mesh.start("stranger", "stranger")

    def told() -> list[str]:
        found = mesh.space.get("events", f"--field-selector=involvedObject.name={name}")["items"]
        return [event["message"] for event in found if event["reason"] == "ForeignObject"]

    assert "was not made by it" in eventually(told, "an Event about the foreign Secret")[0]
    finding = [each for each in mesh.plane.findings("identities") if each["subject"].endswith("/stranger")]
    assert [each["verdict"] for each in finding] == ["fail"]
    assert f"Secret {name} was not made by autotls" in finding[0]["message"]
    assert f"delete secret {name}" in finding[0]["hint"]
    assert mesh.space.get("secret", name) == before
    assert mesh.dial(pod, 8080)["status"] == 200
    mesh.space.kubectl("delete", "pod", "stranger", "--wait=false")
    mesh.space.kubectl("delete", "secret,serviceaccount", name, "stranger", "--ignore-not-found")


def test_full_quota_is_told_and_not_stormed_against(mesh: Mesh) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "no-secrets"}}
    with space(mesh.space.cluster, "full") as full:
        full.apply({**quota, "spec": {"hard": {"count/secrets": "0"}}})
        eventually(lambda: full.get("resourcequota", "no-secrets").get("status", {}).get("hard"), "the quota counts")
        full.kubectl("label", "namespace", full.name, f"{names.INJECT_LABEL}={names.INJECT_ENABLED}")
        refused(mesh.plane, "quota_exceeded")
        assert full.find("secret", names.identity_secret_name("default")) is None


def test_namespace_that_is_going_is_not_stormed_against(mesh: Mesh) -> None:
    """A pod that takes its time to end keeps the namespace going, while somebody removes the pod's identity."""
    # The namespaces of other tests would be counted too.
    mesh.plane.wait_nothing_ends()
    with space(mesh.space.cluster, "going", labels=OPTED_IN) as going:
        pod = a_pod(going.cluster, "slow", "default")
        pod["spec"]["terminationGracePeriodSeconds"] = 600
        pod["spec"]["containers"][0] |= {"command": ["sh", "-c", "trap '' TERM; testbox-server 8080 & wait; sleep 600"]}
        going.apply(pod)
        going.wait_ready("slow")
        name = names.identity_secret_name("default")
        eventually(lambda: going.find("secret", name), "its identity")
        going.kubectl("delete", "namespace", going.name, "--wait=false")
        eventually(lambda: "deletionTimestamp" in going.get("pod", "slow")["metadata"], "the pod is told to end")
        try:
            going.kubectl("delete", "secret", name)
            refused(mesh.plane, "namespace_terminating")
        finally:
            going.kubectl("delete", "pod", "slow", "--grace-period=0", "--force", "--wait=false")


def refused(plane: Plane, reason: str) -> None:
    """The CA counts the refusal, and does not ask again and again."""

    def count() -> float:
        return plane.metric("autotls_identity_failures_total", reason=reason)

    first = eventually(count, f"a failure for {reason}")
    time.sleep(LOOKING_S)
    # A few keys of one namespace may be refused one after another, each once in five minutes.
    assert count() <= first + 2


@pytest.mark.parametrize("registration", [names.REGISTRATION, names.STRICT_REGISTRATION])
def test_spoiled_ca_bundle_is_repaired(mesh: Mesh, registration: str) -> None:
    def bundles() -> set[str]:
        found = mesh.space.cluster.get("mutatingwebhookconfiguration", registration)
        return {webhook["clientConfig"].get("caBundle", "") for webhook in found["webhooks"]}

    before = bundles()
    assert len(before) == 1
    issuer = mesh.plane.space.get("secret", names.ISSUER_SECRET)
    # A certificate, for the API server takes nothing else; but no root.
    patch = [{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": issuer["data"]["tls.crt"]}]
    kind = f"mutatingwebhookconfiguration/{registration}"
    mesh.space.cluster.kubectl("patch", kind, "--type=json", f"--patch={json.dumps(patch)}")
    eventually(lambda: bundles() == before, "the root again")


def test_deleted_serving_certificate_is_made_again_and_served(mesh: Mesh) -> None:
    old = mesh.plane.space.get("secret", names.WEBHOOK_TLS_SECRET)["data"][names.TLS_CERT_KEY]
    mesh.plane.space.kubectl("delete", "secret", names.WEBHOOK_TLS_SECRET)

    def anew() -> str | None:
        found = mesh.plane.space.find("secret", names.WEBHOOK_TLS_SECRET)
        return found["data"][names.TLS_CERT_KEY] if found else None

    new = eventually(anew, "another certificate")
    assert new != old
    wanted = first_certificate(base64.b64decode(new).decode())
    for pod in mesh.plane.pods(names.WEBHOOK):
        # The kubelet brings it, and the process takes it while it serves.
        eventually(lambda pod=pod: served_by(mesh, pod) == wanted, "the new certificate is served")
        assert restarts(mesh.plane.space.get("pod", pod["metadata"]["name"])) == restarts(pod)


def served_by(mesh: Mesh, pod: Object) -> bytes | None:
    """The leaf that a webhook shows, DER."""
    address = f"{pod['status']['podIP']}:{names.WEBHOOK_PORT}"
    argv = [*mesh.space.cluster.enter_network, "openssl", "s_client", "-connect", address]
    done = subprocess.run(argv, input="", capture_output=True, text=True, check=False, timeout=600)
    return first_certificate(done.stdout)


def first_certificate(text: str) -> bytes | None:
    start, end = text.find(BEGIN), text.find(END)
    return ssl.PEM_cert_to_DER_cert(text[start : end + len(END)]) if end > start >= 0 else None
