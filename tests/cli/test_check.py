"""`check`: a healthy installation passes every check, and each thing that breaks is found by its own."""

import base64
import json
from datetime import timedelta
from typing import Any
from xml.etree import ElementTree

import pytest

from cli.checks import report
from cli.checks.model import Outcome, Verdict
from kube import errors
from mesh import names
from mesh.svid import TrustBundle
from tests.ca.authorities import T0, a_root
from tests.cli.installed import NOW, Authorities, Cluster, empty_cluster, healthy_cluster, proxy_metrics, worst

REGISTRATION = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/autotls"
ROOT = "/api/v1/namespaces/autotls/secrets/autotls-root"


async def broken(cluster: Cluster, check: str, verdict: str = "fail", **others: str) -> Outcome:
    """The outcome of `check`, which alone (but for `others`) is not ok."""
    outcomes = await cluster.run()
    assert worst(outcomes) == {check: verdict} | {key.replace("_", "-"): value for key, value in others.items()}
    result = outcomes[check].result
    assert result.hint or all(each.hint for each in result.findings if each.verdict is not Verdict.OK)
    return outcomes[check]


def words(outcome: Outcome) -> str:
    return "\n".join(report.lines(outcome, paint=lambda _, text: text))


async def test_a_healthy_installation_passes_every_check() -> None:
    cluster, _ = healthy_cluster()
    outcomes = await cluster.run()
    assert worst(outcomes) == {}
    assert outcomes["pods-covered"].result.message == "2 pods have their sidecar"
    assert outcomes["identities"].result.message == "1 identities"
    assert outcomes["root-certificate"].result.message == "3650 days left"


async def test_without_an_installation_nothing_else_is_tried() -> None:
    outcomes = await empty_cluster().run()
    assert outcomes["installed"].result.verdict is Verdict.FAIL
    assert {key for key, value in worst(outcomes).items() if value == "skip"} == set(outcomes) - {
        "api-reachable",
        "installed",
    }


async def test_an_api_server_that_does_not_answer_is_one_failure() -> None:
    cluster, _ = healthy_cluster()
    cluster.faults.down = True
    assert list(worst(await cluster.run()).values()).count("fail") == 1


async def test_a_user_without_rights_sees_what_could_not_be_looked_at() -> None:
    cluster, _ = healthy_cluster()

    async def forbid_secrets(verb: str, path: str, body: bytes | None) -> None:
        if "/secrets" in path:
            raise errors.ForbiddenError(403, "Forbidden", 'User "dev" cannot get secrets')

    cluster.faults.before = forbid_secrets
    outcomes = await cluster.run()
    assert worst(outcomes) == dict.fromkeys(
        ("root-certificate", "issuer-certificate", "webhook-certificate", "discovery-certificate", "identities"), "skip"
    )
    assert 'User "dev" cannot get secrets' in outcomes["identities"].result.message


async def test_a_deployment_without_replicas_fails_and_one_with_some_warns() -> None:
    cluster, _ = healthy_cluster()
    path = "/apis/apps/v1/namespaces/autotls/deployments/autotls-ca"
    cluster.edit(path, status={"availableReplicas": 1, "updatedReplicas": 2})
    assert "1 of 2" in words(await broken(cluster, "ca-available", "warn"))
    cluster.edit(path, status={})
    await broken(cluster, "ca-available")
    cluster.remove(path)
    await broken(cluster, "ca-available")


async def test_a_dashboard_that_is_down_is_a_warning_and_none_is_no_fault() -> None:
    cluster, _ = healthy_cluster()
    path = "/apis/apps/v1/namespaces/autotls/deployments/autotls-dashboard"
    cluster.edit(path, status={})
    assert "0 of 1" in words(await broken(cluster, "dashboard-available", "warn"))
    cluster.remove(path)
    assert "no Deployment autotls-dashboard" in words(await broken(cluster, "dashboard-available", "warn"))
    cluster.remove("/api/v1/namespaces/autotls/serviceaccounts/autotls-dashboard")
    assert "dashboard.enabled=true" in words(await broken(cluster, "dashboard-available", "skip"))


async def test_a_dashboard_of_another_version_is_named() -> None:
    cluster, _ = healthy_cluster()
    path = "/apis/apps/v1/namespaces/autotls/deployments/autotls-dashboard"
    cluster.edit(path, metadata={**cluster.get(path)["metadata"], "labels": {"app.kubernetes.io/version": "0.0.1"}})
    assert "deployment autotls-dashboard" in words(await broken(cluster, "control-plane-version", "warn"))


async def test_a_lease_that_nobody_renews_fails() -> None:
    cluster, _ = healthy_cluster()
    path = "/apis/coordination.k8s.io/v1/namespaces/autotls/leases/autotls-ca"
    old = (NOW - timedelta(minutes=2)).strftime("%Y-%m-%dT%H:%M:%S.000000Z")
    cluster.edit(path, spec={"holderIdentity": "autotls-ca-1", "renewTime": old})
    assert "has not renewed" in words(await broken(cluster, "ca-leader"))
    cluster.edit(path, spec={"holderIdentity": ""})
    await broken(cluster, "ca-leader")


async def test_a_webhook_that_does_not_answer_fails_with_the_api_servers_words() -> None:
    cluster, _ = healthy_cluster()
    cluster.webhook = False
    assert "connection refused" in words(await broken(cluster, "webhook-called"))


async def test_the_probe_pod_is_never_stored() -> None:
    cluster, _ = healthy_cluster()
    before = set(cluster.objects)
    await cluster.run()
    assert ("POST", "/api/v1/namespaces/shop/pods") in cluster.requests
    assert set(cluster.objects) == before


async def test_an_expired_webhook_certificate_fails() -> None:
    cluster, authorities = healthy_cluster()
    cluster.seed(authorities.webhook_secret(T0 - timedelta(days=2)))
    assert "expired" in words(await broken(cluster, "webhook-certificate"))


async def test_a_webhook_certificate_that_nobody_renews_warns_before_it_ends() -> None:
    cluster, authorities = healthy_cluster()
    cluster.seed(authorities.webhook_secret(NOW - timedelta(hours=23)))
    await broken(cluster, "webhook-certificate", "warn")


async def test_a_webhook_certificate_of_another_ca_fails() -> None:
    cluster, _ = healthy_cluster()
    cluster.seed(Authorities().webhook_secret())
    await broken(cluster, "webhook-certificate")


async def test_a_ca_bundle_that_lacks_a_new_root_fails() -> None:
    cluster, authorities = healthy_cluster()
    both = TrustBundle.of([authorities.root.certificate, a_root().certificate])
    cluster.edit(ROOT, data={**cluster.get(ROOT)["data"], "ca.crt": base64.b64encode(both.pem).decode()})
    outcome = await broken(cluster, "ca-bundle", identities="warn")
    assert "lacks 1 of 2 root(s)" in words(outcome)


async def test_a_registration_without_ca_bundle_fails() -> None:
    cluster, _ = healthy_cluster()
    registration = cluster.get(REGISTRATION)
    webhooks = [
        {**each, "clientConfig": {**each["clientConfig"], "caBundle": None}} for each in registration["webhooks"]
    ]
    cluster.edit(REGISTRATION, webhooks=webhooks)
    assert "has no caBundle" in words(await broken(cluster, "ca-bundle"))


def owner(kind: str, name: str) -> dict[str, Any]:
    return {"ownerReferences": [{"kind": kind, "name": name, "uid": "u", "controller": True}]}


@pytest.mark.parametrize(
    ("metadata", "command"),
    [
        pytest.param(
            {"labels": {"pod-template-hash": "5d8f"}} | owner("ReplicaSet", "api-5d8f"),
            "kubectl -n shop rollout restart deployment/api",
            id="of a Deployment",
        ),
        pytest.param(
            owner("StatefulSet", "db"), "kubectl -n shop rollout restart statefulset/db", id="of a StatefulSet"
        ),
        pytest.param(owner("DaemonSet", "log"), "kubectl -n shop rollout restart daemonset/log", id="of a DaemonSet"),
        pytest.param(owner("Job", "once"), "kubectl -n shop delete pod lost", id="of a Job"),
        pytest.param({}, "kubectl -n shop replace --force -f pod.yaml", id="bare"),
    ],
)
async def test_a_pod_without_sidecar_is_named_with_the_command_that_restarts_it(
    metadata: dict[str, Any], command: str
) -> None:
    cluster, _ = healthy_cluster()
    cluster.seed_pod("lost", injected=False, metadata=metadata)
    assert command in words(await broken(cluster, "pods-covered"))


async def test_pods_that_did_not_opt_in_or_have_ended_are_not_missed() -> None:
    cluster, _ = healthy_cluster()
    cluster.seed_pod("elsewhere", namespace="default", injected=False)
    cluster.seed_pod("out", injected=False, metadata={"labels": {names.INJECT_LABEL: "disabled"}})
    cluster.seed_pod("done", injected=False, status={"phase": "Succeeded"})
    assert worst(await cluster.run()) == {}


async def test_a_pod_that_cannot_be_injected_is_told_with_its_reason() -> None:
    cluster, _ = healthy_cluster()
    cluster.seed_pod("host", injected=False, spec={"hostNetwork": True})
    outcomes = await cluster.run()
    assert worst(outcomes) == {}
    assert "pod shop/host: left alone: host_network" in words(outcomes["pods-covered"])


async def test_an_image_that_cannot_be_pulled_is_named() -> None:
    cluster, _ = healthy_cluster()
    waiting = {"name": names.INIT_CONTAINER, "state": {"waiting": {"reason": "ImagePullBackOff", "message": "m"}}}
    cluster.seed_pod("stuck", status={"phase": "Pending", "initContainerStatuses": [waiting]})
    text = words(await broken(cluster, "proxies-running"))
    assert "pod shop/stuck: image autotls/proxy:0.1.0 cannot be pulled (ImagePullBackOff)" in text


async def test_a_proxy_that_is_not_running_is_named() -> None:
    cluster, _ = healthy_cluster()
    ended = {"name": names.PROXY_CONTAINER, "state": {"terminated": {}}}
    cluster.seed_pod("dead", status={"phase": "Running", "initContainerStatuses": [ended]})
    assert "its proxy is not running" in words(await broken(cluster, "proxies-running"))


async def test_a_missing_identity_is_named() -> None:
    cluster, _ = healthy_cluster()
    cluster.remove("/api/v1/namespaces/shop/secrets/autotls-identity-web")
    text = words(await broken(cluster, "identities"))
    assert "service account shop/web: it has no identity yet: 2 pod(s) in plaintext" in text


async def test_a_foreign_secret_of_our_name_is_named() -> None:
    cluster, authorities = healthy_cluster()
    foreign = authorities.identity()
    del foreign["metadata"]["labels"]
    cluster.seed(foreign)
    assert "was not made by autotls" in words(await broken(cluster, "identities"))


async def test_an_identity_that_expired_is_named_with_the_cas_reason() -> None:
    cluster, authorities = healthy_cluster()
    cluster.seed(authorities.identity(now=NOW - timedelta(hours=20)))
    for pod in ("web-1", "web-2"):
        cluster.metrics[pod] = proxy_metrics(leaf_ends=NOW + timedelta(hours=4))
    assert "expiring: " in words(await broken(cluster, "identities", "warn", outage_budget="warn"))


async def test_no_key_is_ever_shown() -> None:
    cluster, _ = healthy_cluster()
    cluster.seed(Authorities().identity())
    shown = report.as_json(list((await cluster.run()).values()))
    secrets = [each["data"]["tls.key"] for each in cluster.listed("secrets")]
    assert secrets
    for key in secrets:
        assert key not in shown
        assert base64.b64decode(key).decode().splitlines()[1] not in shown


async def test_limits_that_would_refuse_the_sidecar_are_named() -> None:
    cluster, _ = healthy_cluster()
    limits = [
        {"type": "Container", "max": {"cpu": "500m"}, "min": {"memory": "64Mi"}, "maxLimitRequestRatio": {"cpu": "2"}}
    ]
    meta = {"name": "small", "namespace": "shop"}
    cluster.seed({"apiVersion": "v1", "kind": "LimitRange", "metadata": meta, "spec": {"limits": limits}})
    text = words(await broken(cluster, "room-for-sidecars"))
    assert "at most 500m cpu for a container" in text
    assert "at least 64Mi memory for a container" in text
    assert "a cpu limit of at most 2 times the request" in text


async def test_a_quota_without_room_for_one_more_sidecar_warns() -> None:
    cluster, _ = healthy_cluster()
    meta = {"name": "full", "namespace": "shop"}
    status = {"hard": {"requests.memory": "100Mi"}, "used": {"requests.memory": "96Mi"}}
    cluster.seed({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "status": status})
    assert "96Mi of 100Mi are used" in words(await broken(cluster, "room-for-sidecars", "warn"))


async def test_limits_of_other_namespaces_do_not_count() -> None:
    cluster, _ = healthy_cluster()
    limits = [{"type": "Container", "max": {"cpu": "1m"}}]
    meta = {"name": "small", "namespace": "default"}
    cluster.seed({"apiVersion": "v1", "kind": "LimitRange", "metadata": meta, "spec": {"limits": limits}})
    assert worst(await cluster.run()) == {}


async def test_a_sidecar_of_another_version_warns() -> None:
    cluster, _ = healthy_cluster()
    pod = cluster.get("/api/v1/namespaces/shop/pods/web-1")
    pod["metadata"]["annotations"][names.VERSION_ANNOTATION] = "0.0.1"
    assert "is of version 0.0.1" in words(await broken(cluster, "sidecar-version", "warn"))


async def test_one_namespace_can_be_looked_at_alone() -> None:
    cluster, _ = healthy_cluster()
    cluster.seed_pod("lost", injected=False)
    assert "pods-covered" in worst(await cluster.run())
    assert worst(await cluster.run(only="default")) == {}


async def test_an_empty_cluster_is_ready_for_autotls() -> None:
    outcomes = await empty_cluster().run(before=True)
    assert worst(outcomes) == {}


async def test_what_keeps_autotls_out_is_found_before_installing() -> None:
    cluster = empty_cluster()
    cluster.version_text = "v1.28.9+k3s1"
    cluster.edit("/api/v1/nodes/node1", status={"nodeInfo": {"kubeletVersion": "v1.27.1"}})
    cluster.refused = {"clusterroles"}
    cluster.clock = NOW + timedelta(minutes=7)
    cluster.seed(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": names.ROOT_SECRET, "namespace": "autotls"}}
    )
    assert worst(await cluster.run(before=True)) == {
        "api-version": "fail",
        "kubelets": "fail",
        "permissions": "fail",
        "nothing-in-the-way": "fail",
        "clock": "warn",
    }


async def test_kubelets_that_the_webhook_does_not_count_do_not_keep_autotls_out() -> None:
    cluster = empty_cluster()
    for name, system, version in (("win", "windows", "v1.27.1"), ("virtual", "linux", "vk-edge")):
        info = {"nodeInfo": {"kubeletVersion": version, "operatingSystem": system}}
        cluster.seed({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": info})
    outcomes = await cluster.run(before=True)
    assert worst(outcomes) == {"kubelets": "warn"}
    assert [finding.subject for finding in outcomes["kubelets"].result.findings] == ["node virtual"]


async def test_an_existing_installation_is_an_upgrade() -> None:
    cluster, _ = healthy_cluster()
    assert worst(await cluster.run(before=True)) == {"nothing-in-the-way": "warn"}


async def test_json_and_junit_hold_every_check() -> None:
    cluster, _ = healthy_cluster()
    cluster.seed_pod("lost", injected=False)
    outcomes = list((await cluster.run()).values())
    value = json.loads(report.as_json(outcomes))
    assert value["summary"] == {"ok": len(outcomes) - 1, "warn": 0, "fail": 1, "skip": 0}
    assert [each["id"] for each in value["checks"]] == [each.check.id for each in outcomes]
    tree = ElementTree.fromstring(report.as_junit(outcomes))
    assert len(tree.findall(".//testcase")) == len(outcomes)
    assert [case.get("name") for case in tree.findall(".//testcase[failure]")] == ["pods-covered"]
