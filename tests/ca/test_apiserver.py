"""The CA as a process against a real API server: field ownership, races, kills."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster import apiserver
from cluster.apiserver import ApiServer

pytestmark = pytest.mark.apiserver
REPOSITORY = Path(__file__).parents[2]
# Long: this may run beside the builds of a whole cluster.
DEADLINE_S = 240.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with apiserver.start(tmp_path_factory.mktemp("apiserver")) as running:
        yield running


@dataclass
class Installation:
    """A control-plane namespace of its own on the shared API server."""

    server: ApiServer
    folder: Path
    name: str

    def config(self, **identity: str) -> Path:
        lines = [f"controlPlaneNamespace: {self.name}", "lease: {duration: 12s, renewDeadline: 8s, retryPeriod: 1s}"]
        if identity:
            lines.append("identity: " + json.dumps(identity))
        path = self.folder / "config.yaml"
        path.write_text("\n".join(lines))
        return path

    @contextmanager
    def ca(self, replica: str = "ca-0", **identity: str) -> Iterator[subprocess.Popen[bytes]]:
        """`python -m ca` while the context lasts."""
        environment = os.environ | {
            "AUTOTLS_CONFIG": str(self.config(**identity)),
            "KUBECONFIG": str(self.server.kubeconfig),
            "AUTOTLS_POD_NAME": replica,
            "AUTOTLS_HEALTH_PORT": "0",
        }
        environment.pop("KUBERNETES_SERVICE_HOST", None)
        log = (self.folder / f"{replica}.log").open("ab")
        process = subprocess.Popen(
            [sys.executable, "-m", "ca"], cwd=REPOSITORY, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            process.terminate()
            code = process.wait(DEADLINE_S)
            log.close()
        # 0: SIGTERM ended it in order; the others are what a test itself did to it.
        assert code in (0, 2, -signal.SIGKILL), self.log(replica)

    def log(self, replica: str = "ca-0") -> str:
        return (self.folder / f"{replica}.log").read_text()

    def get(self, kind: str, name: str, namespace: str | None = None, *more: str) -> dict[str, Any] | None:
        place = () if namespace == "" else ("-n", namespace or self.name)
        text = self.server.kubectl("get", kind, name, *place, "-o", "json", "--ignore-not-found", *more)
        return json.loads(text) if text else None

    def apply(self, *objects: dict[str, Any]) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.server.kubectl("apply", "-f", "-", stdin=json.dumps(listed))

    def accounts(self, namespace: str, *accounts: str) -> None:
        """A namespace that opted in, with ServiceAccounts."""
        labels = {"autotls.io/inject": "enabled"}
        objects: list[dict[str, Any]] = [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}
        ]
        for account in accounts:
            metadata = {"name": account, "namespace": namespace}
            objects.append({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        self.apply(*objects)


@pytest.fixture
def installation(server: ApiServer, tmp_path: Path, request: pytest.FixtureRequest) -> Installation:
    name = "cp-" + request.node.name.removeprefix("test_").replace("_", "-")[:40].strip("-")
    server.kubectl("create", "namespace", name)
    return Installation(server, tmp_path, name)


def eventually(look: Callable[[], Any], what: str) -> Any:
    """What `look` gives as soon as it is true."""
    end = time.monotonic() + DEADLINE_S
    while not (found := look()):
        assert time.monotonic() < end, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.1)
    return found


def managers(obj: dict[str, Any]) -> dict[str, Any]:
    return {entry["manager"]: entry["fieldsV1"] for entry in obj["metadata"]["managedFields"]}


def decoded(secret: dict[str, Any], key: str) -> bytes:
    return base64.b64decode(secret["data"][key])


def registration(name: str, service_namespace: str) -> dict[str, Any]:
    webhook: dict[str, Any] = {
        "name": "optional.autotls.io",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Ignore",
        "timeoutSeconds": 2,
        "clientConfig": {"service": {"name": "autotls-webhook", "namespace": service_namespace, "path": "/mutate"}},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
    }
    other = webhook | {"name": "second.autotls.io"}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [webhook, other],
    }


def test_identities_verify_with_openssl_and_survive_corruption_and_deletion(installation: Installation) -> None:
    installation.accounts("shop", "web")
    with installation.ca():
        secret = eventually(lambda: installation.get("secret", "autotls-identity-web", "shop"), "an identity")
        folder = installation.folder
        for key in secret["data"]:
            (folder / key).write_bytes(decoded(secret, key))
        argv = ["openssl", "verify", "-x509_strict", "-CAfile", str(folder / "ca.crt")]
        argv += ["-untrusted", str(folder / "tls.crt"), str(folder / "tls.crt")]
        assert subprocess.run(argv, capture_output=True, check=False, timeout=120).returncode == 0

        installation.server.kubectl("delete", "secret", "autotls-identity-web", "-n", "shop")
        again = eventually(lambda: installation.get("secret", "autotls-identity-web", "shop"), "the identity again")
        assert again["data"]["tls.crt"] != secret["data"]["tls.crt"]

        patch = json.dumps({"data": {"tls.crt": base64.b64encode(b"garbage").decode()}})
        installation.server.kubectl("patch", "secret", "autotls-identity-web", "-n", "shop", "-p", patch)

        def repaired() -> bool:
            now = installation.get("secret", "autotls-identity-web", "shop")
            return bool(now and decoded(now, "tls.crt").startswith(b"-----BEGIN CERTIFICATE"))

        eventually(repaired, "the repaired identity")
        eventually(lambda: '"reason":"malformed"' in installation.log(), "the word about it in the log")


def test_ca_bundle_is_the_only_field_that_becomes_ours(installation: Installation) -> None:
    installation.server.kubectl("delete", "mutatingwebhookconfigurations", "--all")
    chart = registration("autotls", installation.name)
    template = registration("autotls-strict", installation.name)
    template["webhooks"] = [one | {"failurePolicy": "Fail"} for one in template["webhooks"]]
    labels = {"name": "autotls-strict-registration", "namespace": installation.name}
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": labels}
    config_map["data"] = {"registration.json": json.dumps(template)}  # pyright: ignore
    installation.apply(chart, config_map)

    def seen(name: str) -> dict[str, Any] | None:
        found = installation.get("mutatingwebhookconfigurations", name, "", "--show-managed-fields")
        ready = found and all("caBundle" in one["clientConfig"] for one in found["webhooks"])
        return found if ready else None

    with installation.ca():
        optional = eventually(lambda: seen("autotls"), "caBundle")
        root = installation.get("secret", "autotls-root")
        assert root is not None
        bundle = base64.b64encode(decoded(root, "ca.crt")).decode()
        assert [one["clientConfig"]["caBundle"] for one in optional["webhooks"]] == [bundle, bundle]
        assert managers(optional)["autotls-ca"] == {
            "f:webhooks": {
                f'k:{{"name":"{name}"}}': {".": {}, "f:name": {}, "f:clientConfig": {"f:caBundle": {}}}
                for name in ("optional.autotls.io", "second.autotls.io")
            }
        }

        strict = eventually(lambda: seen("autotls-strict"), "the strict registration")
        assert [one["failurePolicy"] for one in strict["webhooks"]] == ["Fail", "Fail"]
        assert strict["metadata"]["ownerReferences"][0]["uid"] == optional["metadata"]["uid"]

        # An upgrade by client-side apply changes what is the chart's and leaves what is ours.
        chart["webhooks"][0]["timeoutSeconds"] = 3
        chart["webhooks"] = chart["webhooks"][:1]
        installation.apply(chart)
        upgraded = seen("autotls")
        assert upgraded is not None and len(upgraded["webhooks"]) == 1
        assert upgraded["webhooks"][0]["timeoutSeconds"] == 3

        # Damage is repaired.
        damage = json.dumps([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}])
        installation.server.kubectl("patch", "mutatingwebhookconfigurations", "autotls", "--type=json", "-p", damage)
        eventually(lambda: seen("autotls"), "caBundle again")
        installation.server.kubectl("delete", "mutatingwebhookconfigurations", "autotls-strict")
        eventually(lambda: seen("autotls-strict"), "the strict registration again")

        # Uninstalled: the CA must not bring it back.
        installation.server.kubectl("delete", "mutatingwebhookconfigurations", "autotls", "autotls-strict")
        installation.accounts("after", "web")
        eventually(lambda: installation.get("secret", "autotls-identity-web", "after"), "work that came later")
        assert seen("autotls") is None and seen("autotls-strict") is None
    assert "work_failed" not in installation.log()


def test_racing_processes_end_with_one_root_and_a_killed_leader_is_followed(installation: Installation) -> None:
    installation.accounts("race", "web")
    with installation.ca("ca-0") as first, installation.ca("ca-1") as second:
        secret = eventually(lambda: installation.get("secret", "autotls-identity-web", "race"), "an identity")
        root = installation.get("secret", "autotls-root")
        holder = installation.get("lease", "autotls-ca")
        assert root is not None and holder is not None
        leader = first if holder["spec"]["holderIdentity"].startswith("ca-0") else second
        leader.send_signal(signal.SIGKILL)
        installation.accounts("race", "later")
        eventually(lambda: installation.get("secret", "autotls-identity-later", "race"), "work of the other replica")
        assert installation.get("secret", "autotls-root") == root
        assert installation.get("secret", "autotls-identity-web", "race") == secret
    logs = installation.log("ca-0") + installation.log("ca-1")
    assert logs.count("root_made") == 1 and logs.count("issuer_made") == 1


def test_a_killed_api_server_costs_nothing(installation: Installation) -> None:
    installation.accounts("outage", "web")
    with installation.ca() as process:
        before = eventually(lambda: installation.get("secret", "autotls-identity-web", "outage"), "an identity")
        root = installation.get("secret", "autotls-root")
        installation.server.kill()
        eventually(lambda: "leadership_lost" in installation.log(), "the Lease lost")
        installation.server.restart()
        installation.accounts("outage", "later")
        eventually(lambda: installation.get("secret", "autotls-identity-later", "outage"), "work after the outage")
        assert process.poll() is None
        assert installation.get("secret", "autotls-root") == root
        assert installation.get("secret", "autotls-identity-web", "outage") == before
        patch = json.dumps({"metadata": {"labels": {"autotls.io/inject": "disabled"}}})
        installation.server.kubectl("patch", "namespace", "outage", "-p", patch)


def test_leaves_and_issuers_of_seconds_renew_by_themselves(installation: Installation) -> None:
    installation.accounts("short", "web")
    lives = {"leafLifetime": "9s", "issuerLifetime": "30s", "rootLifetime": "1h", "clockSkew": "5s"}
    with installation.ca(**lives):
        chains: set[bytes] = set()

        def two_issuers_and_three_leaves() -> bool:
            secret = installation.get("secret", "autotls-identity-web", "short")
            if secret is not None:
                chains.add(decoded(secret, "tls.crt"))
            return len({chain.split(b"-----BEGIN")[2] for chain in chains}) >= 2 and len(chains) >= 3

        eventually(two_issuers_and_three_leaves, "a leaf of the second issuer, and a third leaf")


def test_a_wrong_configuration_is_refused_in_one_sentence(installation: Installation) -> None:
    with installation.ca(leafLifetime="a while") as process:
        assert process.wait(DEADLINE_S) == 2
    assert "identity.leaf_lifetime" in installation.log() and "Traceback" not in installation.log()
