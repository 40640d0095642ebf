"""`check` of the proxies and of known conflicts: what is wrong is found by its own check, with what to do."""

from datetime import timedelta
from typing import Any

import pytest

from cli.checks.model import Verdict
from cli.served import ARRIVAL
from kube import errors
from mesh import names
from tests.cli.installed import NOW, Cluster, empty_cluster, healthy_cluster, proxy_metrics
from tests.cli.test_check import broken, words

HOUR = timedelta(hours=1)


async def test_a_proxy_that_does_not_answer_is_a_finding_and_the_others_are_looked_at() -> None:
    cluster, _ = healthy_cluster()
    cluster.metrics["web-1"] = errors.UnreachableError("Timeout", "no answer")
    outcome = await broken(cluster, "proxies-answer")
    assert "pod shop/web-1: " in words(outcome)
    assert "web-2" not in words(outcome)


async def test_a_user_without_the_right_to_proxy_sees_the_data_plane_skipped() -> None:
    cluster, _ = healthy_cluster()
    cluster.metrics["web-1"] = errors.ForbiddenError(403, "Forbidden", 'User "dev" cannot get pods/proxy')
    outcomes = await cluster.run()
    skipped = {key for key, each in outcomes.items() if each.result.verdict is Verdict.SKIP}
    plaintext = "plaintext-to-meshed"
    assert skipped == {"proxies-answer", "proxies-connected", "identities-served", plaintext, "outage-budget"}


REQUESTS = 'envoy_autotls_rq{{dir="outbound",tls="",svc="{svc}",dst="{dst}",reason="{reason}",code="200"}} {count}\n'
FAILED = 'envoy_cluster_{what}{{envoy_cluster_name="shop/db_5432"}} {count}\n'
NO_IDENTITY = "envoy_listener_server_ssl_socket_factory_downstream_context_secrets_not_ready"


@pytest.mark.parametrize(
    ("evidence", "server_says", "cause"),
    [
        ("", "", "tls_failed"),
        (FAILED.format(what="upstream_cx_connect_fail", count=3), "", "unreachable"),
        (FAILED.format(what="upstream_cx_connect_fail", count=3), NO_IDENTITY + "{} 2\n", "no_identity_server"),
        (
            FAILED.format(what="upstream_cx_connect_fail", count=3)
            + FAILED.format(what="ssl_fail_verify_san", count=3),
            "",
            "handshake_failed",
        ),
    ],
)
async def test_plaintext_between_meshed_workloads_is_named_with_its_cause(
    evidence: str, server_says: str, cause: str
) -> None:
    cluster, _ = healthy_cluster()
    server = "shop/pod/web-2"
    sent = REQUESTS.format(svc="shop/db:5432", dst=server, reason="tls_failed", count=7)
    other = REQUESTS.format(svc="shop/old:80", dst="shop/pod/old", reason="not_meshed", count=9)
    cluster.metrics["web-1"] = proxy_metrics() + sent + other + evidence
    cluster.metrics["web-2"] = proxy_metrics() + server_says
    text = words(await broken(cluster, "plaintext-to-meshed", "warn"))
    assert f"in plaintext to {server}, which has a sidecar: {cause} (7 requests or connections)" in text
    assert "shop/pod/old" not in text


async def test_a_proxy_without_discovery_fails_once_it_has_had_its_time() -> None:
    cluster, _ = healthy_cluster()
    cluster.metrics["web-1"] = proxy_metrics(connected=0, uptime_s=5)
    await broken(cluster, "proxies-connected", "warn")
    cluster.metrics["web-1"] = proxy_metrics(connected=0, uptime_s=300)
    text = words(await broken(cluster, "proxies-connected"))
    assert "it is not connected to discovery (runs for 5 min)" in text


async def test_a_proxy_that_serves_an_older_certificate_lags() -> None:
    cluster, _ = healthy_cluster()
    # The Secret's is an hour old; the one served ends half an hour before it.
    cluster.metrics["web-1"] = proxy_metrics(leaf_ends=NOW + 22.5 * HOUR)
    text = words(await broken(cluster, "identities-served", "warn"))
    assert "pod shop/web-1: it lags: another certificate was issued 60 min ago" in text
    assert "autotls identity web-1 -n shop" in text


async def test_a_certificate_that_is_on_its_way_is_nobodys_fault() -> None:
    cluster, authorities = healthy_cluster()
    cluster.seed(authorities.identity(now=NOW - ARRIVAL))
    outcomes = await cluster.run()
    assert outcomes["identities-served"].result.verdict is Verdict.OK


@pytest.mark.parametrize(("number", "told"), [(0, "0"), (2**63, "the largest number")])
async def test_a_proxy_without_a_certificate_says_so(number: int, told: str) -> None:
    cluster, _ = healthy_cluster()
    ends = str(int((NOW + 23 * HOUR).timestamp()))
    cluster.metrics["web-1"] = proxy_metrics(leaf_ends=NOW + 23 * HOUR).replace(ends, str(number))
    assert "it has no certificate; one was issued 60 min ago" in words(await broken(cluster, "identities-served"))


async def test_an_expired_certificate_that_is_still_served_fails_and_uses_up_the_budget() -> None:
    cluster, _ = healthy_cluster()
    cluster.metrics["web-2"] = proxy_metrics(leaf_ends=NOW - HOUR)
    outcome = await broken(cluster, "identities-served", outage_budget="fail")
    assert "pod shop/web-2: its certificate expired 60 min ago" in words(outcome)


async def test_the_outage_budget_is_the_time_to_the_first_end() -> None:
    cluster, _ = healthy_cluster()
    cluster.metrics["web-2"] = proxy_metrics(leaf_ends=NOW + 9 * HOUR)
    result = (await cluster.run())["outage-budget"].result
    assert (result.verdict, result.message) == (Verdict.OK, "9 h, until the certificate of pod shop/web-2 ends")
    cluster.metrics["web-2"] = proxy_metrics(leaf_ends=NOW + 5 * HOUR)
    result = (await cluster.run())["outage-budget"].result
    assert result.verdict is Verdict.WARN
    assert result.message.startswith("5 h, until the certificate of pod shop/web-2 ends; ")


async def test_a_control_plane_of_another_version_warns() -> None:
    cluster, _ = healthy_cluster()
    path = "/apis/apps/v1/namespaces/autotls/deployments/autotls-ca"
    cluster.get(path)["metadata"]["labels"]["app.kubernetes.io/version"] = "0.0.1"
    assert "deployment autotls-ca: it is of version 0.0.1" in words(
        await broken(cluster, "control-plane-version", "warn")
    )


# ---- conflicts ----


def put_service(cluster: Cluster, name: str, **spec: Any) -> None:
    ports = [{"port": 80, "targetPort": 8080}]
    whole = {"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "selector": {"app": "web"}, "ports": ports} | spec
    metadata = {"name": name, "namespace": "shop"}
    cluster.seed({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": whole})


def with_web(**annotations: str) -> Cluster:
    """A meshed pod that Services and policies of `app: web` select."""
    cluster, _ = healthy_cluster()
    keyed = {names.SETTING_PREFIX + key.replace("_", "-"): value for key, value in annotations.items()}
    cluster.seed_pod("web-3", metadata={"labels": {"app": "web"}, "annotations": keyed})
    return cluster


def put_policy(cluster: Cluster, **spec: Any) -> None:
    whole = {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]} | spec
    meta = {"name": "narrow", "namespace": "shop"}
    cluster.seed({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": whole})


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"sessionAffinity": "ClientIP"}, "session_affinity"),
        ({"internalTrafficPolicy": "Local"}, "internal_traffic_policy_local"),
        ({"trafficDistribution": "PreferClose"}, "traffic_distribution"),
    ],
)
async def test_a_service_that_is_left_to_kube_proxy_is_named_with_the_reason(spec: dict[str, str], reason: str) -> None:
    cluster = with_web()
    put_service(cluster, "web", **spec)
    text = words(await broken(cluster, "unsupported-services", "warn"))
    assert f"service shop/web: {reason}: kube-proxy balances it, in plaintext (1 meshed pod(s))" in text


async def test_services_without_meshed_pods_do_not_matter() -> None:
    cluster = with_web()
    put_service(cluster, "other", sessionAffinity="ClientIP", selector={"app": "other"})
    put_service(cluster, "by-hand", sessionAffinity="ClientIP", selector=None)
    assert (await cluster.run())["unsupported-services"].result.verdict is Verdict.OK


async def test_a_clients_address_that_the_proxy_hides_is_told_where_a_service_asks_for_it() -> None:
    cluster = with_web(inbound="observed")
    put_service(cluster, "web", type="LoadBalancer", externalTrafficPolicy="Local")
    text = words(await broken(cluster, "source-addresses", "warn"))
    assert "service shop/web: externalTrafficPolicy Local, and 1 pod(s) are observed" in text
    direct = with_web()
    put_service(direct, "web", type="LoadBalancer", externalTrafficPolicy="Local")
    assert (await direct.run())["source-addresses"].result.verdict is Verdict.OK


APP_ONLY = {"ports": [{"port": 8080, "protocol": "TCP"}]}
OURS = {"ports": [{"port": 15108}]}


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"ingress": [APP_ONLY]}, "may not be reached on 15108"),
        ({"ingress": [{"ports": [{"port": "http"}]}]}, "may not be reached on 15108"),
        ({"ingress": [APP_ONLY, OURS]}, ""),
        ({"ingress": [{"from": [{"podSelector": {}}]}]}, ""),
        ({"ingress": [{"ports": [{"port": 8000, "endPort": 16000}]}]}, ""),
        ({"ingress": [{"ports": [{"port": 15108, "protocol": "UDP"}]}]}, "may not be reached on 15108"),
        ({"ingress": []}, ""),
        ({"ingress": [APP_ONLY], "podSelector": {"matchLabels": {"app": "other"}}}, ""),
        ({"policyTypes": ["Egress"], "egress": [APP_ONLY, OURS]}, "may not dial discovery on 15110"),
        ({"policyTypes": ["Egress"], "egress": [APP_ONLY, {"ports": [{"port": 15110}]}]}, "may not dial 15108"),
        ({"policyTypes": ["Egress"], "egress": [{"ports": [{"port": 15108, "endPort": 15110}]}]}, ""),
    ],
    ids=[
        "a policy that knows the application's port alone",
        "a named port is none of ours",
        "two rules, one of them for us",
        "no ports: all of them",
        "a range that holds it",
        "UDP is not TCP",
        "nothing at all may come in: nothing is missing",
        "another pod's policy",
        "outbound without discovery",
        "outbound without mutual TLS",
        "outbound with both",
    ],
)
async def test_a_networkpolicy_that_forgets_the_proxys_ports_is_named(spec: dict[str, Any], says: str) -> None:
    cluster = with_web()
    put_policy(cluster, **spec)
    if not says:
        assert (await cluster.run())["network-policies"].result.verdict is Verdict.OK
        return
    text = words(await broken(cluster, "network-policies", "warn"))
    assert f"networkpolicy shop/narrow: pod shop/web-3 {says}" in text
    assert "allow TCP 151" in text


async def test_policies_are_additive_and_their_expressions_count() -> None:
    cluster = with_web()
    expressions = [{"key": "app", "operator": "NotIn", "values": ["db"]}, {"key": "app", "operator": "Exists"}]
    put_policy(cluster, ingress=[APP_ONLY], podSelector={"matchExpressions": expressions})
    await broken(cluster, "network-policies", "warn")
    meta = {"name": "mesh", "namespace": "shop"}
    spec = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [OURS]}
    cluster.seed({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec})
    assert (await cluster.run())["network-policies"].result.verdict is Verdict.OK


async def test_what_is_the_proxys_is_named_where_an_application_uses_it() -> None:
    cluster = with_web()
    container = {"name": "app", "image": "app", "ports": [{"containerPort": 15120}]}
    cluster.seed_pod("clash", injected=False, spec={"containers": [container]})
    put_service(cluster, "web", ports=[{"port": 80, "targetPort": 15108}])
    text = words(await broken(cluster, "clashes", "warn"))
    assert "pod shop/clash: left alone: port_clash" in text
    assert "service shop/web: it sends to port 15108 of 1 meshed pod(s)" in text


async def test_a_setting_that_is_not_allowed_is_named_where_it_stands() -> None:
    cluster = with_web(inbound="sometimes")
    text = words(await broken(cluster, "settings", "warn"))
    assert 'pod shop/web-3: config.autotls.io/inbound: "sometimes" is not' in text
    shop = cluster.get("/api/v1/namespaces/shop")
    shop["metadata"]["annotations"] = {names.SETTING_PREFIX + "colour": "red"}
    assert 'namespace shop: config.autotls.io/colour: "red" is not read' in words((await cluster.run())["settings"])


async def test_before_installing_nothing_of_this_is_asked() -> None:
    cluster = empty_cluster()
    await cluster.run(before=True)
    assert not [path for _, path in cluster.requests if "networkpolicies" in path or "proxy" in path]
