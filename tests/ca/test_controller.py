"""The CA as its users see it: what it writes, what it leaves alone, what survives which fault."""

import asyncio
import base64
from typing import Any

from cryptography.hazmat.primitives import serialization

from kube.errors import ForbiddenError
from mesh import names
from mesh.config import IdentityConfig, MeshConfig
from tests.ca.harness import Cluster, obj, settle, short_lives, virtual

_DER = serialization.Encoding.DER
SECRET_PATH = "/api/v1/namespaces/shop/secrets/autotls-identity-web"
BUNDLE_PATH = "/api/v1/namespaces/shop/configmaps/autotls-trust-bundle"
ROOT_PATH = "/api/v1/namespaces/autotls/secrets/autotls-root"
ISSUER_PATH = "/api/v1/namespaces/autotls/secrets/autotls-issuer"


def shop(config: MeshConfig | None = None) -> Cluster:
    """A namespace that opted in, with one ServiceAccount."""
    cluster = Cluster(config or MeshConfig())
    cluster.opted_in("shop")
    cluster.account("shop", "web")
    return cluster


@virtual
async def test_every_service_account_of_a_namespace_that_opted_in_gets_an_identity() -> None:
    cluster = shop()
    cluster.namespace("plain")
    cluster.account("plain", "web")
    async with cluster.leading():
        assert cluster.judged("shop", "web")
        assert cluster.secret("plain", "web") is None
        cluster.account("shop", "later")
        await settle()
        assert cluster.judged("shop", "later")
        secret = cluster.api.get(SECRET_PATH)
        assert secret["type"] == "kubernetes.io/tls"
        assert secret["metadata"]["labels"] == {
            "app.kubernetes.io/managed-by": "autotls",
            "autotls.io/control-plane": "autotls",
        }
        assert secret["metadata"]["annotations"] == {names.SERVICE_ACCOUNT_ANNOTATION: "web"}
        assert sorted(secret["data"]) == ["ca.crt", "tls.crt", "tls.key"]


@virtual
async def test_a_namespace_that_opts_in_later_gets_all_its_identities() -> None:
    cluster = Cluster()
    cluster.namespace("shop")
    for name in ("a", "b", "c"):
        cluster.account("shop", name)
    async with cluster.leading():
        assert cluster.api.listed("secrets", "shop") == []
        cluster.opted_in("shop")
        await settle()
        assert all(cluster.judged("shop", name) for name in ("a", "b", "c"))


@virtual
async def test_the_account_of_a_pod_that_is_injected_or_asks_to_be_gets_an_identity() -> None:
    cluster = Cluster()
    cluster.namespace("plain")
    for name in ("carries", "asks", "neither"):
        cluster.account("plain", name)
    async with cluster.leading():
        cluster.pod("plain", "a", "carries", sidecar=True)
        cluster.pod("plain", "b", "asks", labels={names.INJECT_LABEL: "enabled"})
        cluster.pod("plain", "c", "neither")
        await settle()
        assert cluster.judged("plain", "carries")
        assert cluster.judged("plain", "asks")
        assert cluster.secret("plain", "neither") is None


@virtual
async def test_identities_that_pods_wait_for_are_issued_before_the_rest() -> None:
    cluster = shop()
    for number in range(100):
        cluster.account("shop", f"idle-{number:03}")
    cluster.account("shop", "zebra")
    cluster.pod("shop", "zebra-0", "zebra", sidecar=True, phase="Pending")
    async with cluster.leading():
        made = [path for method, path in cluster.api.requests if method == "POST" and path.endswith("/secrets")]
        assert len(made) > 100
        versions = {
            account: int(secret.metadata.resource_version)
            for account in ("web", "zebra", *(f"idle-{number:03}" for number in range(100)))
            if (secret := cluster.secret("shop", account))
        }
        assert min(versions, key=versions.__getitem__) == "zebra"


@virtual
async def test_every_namespace_with_an_identity_has_the_trust_bundle_and_no_other_has() -> None:
    cluster = shop()
    cluster.namespace("plain")
    async with cluster.leading():
        bundle = cluster.api.get(BUNDLE_PATH)
        assert bundle["data"] == {"ca.crt": cluster.trust.bundle.pem.decode()}
        assert len(cluster.api.listed("configmaps")) == 1
        cluster.api.seed({**bundle, "data": {"ca.crt": "nonsense"}})
        await settle()
        assert cluster.api.get(BUNDLE_PATH)["data"]["ca.crt"] == cluster.trust.bundle.pem.decode()
        cluster.api.remove(BUNDLE_PATH)
        await settle()
        assert cluster.api.get(BUNDLE_PATH)["data"]["ca.crt"] == cluster.trust.bundle.pem.decode()


@virtual
async def test_bundle_of_a_namespace_that_is_going_is_not_made_again() -> None:
    cluster = shop()
    async with cluster.leading():
        cluster.api.terminate_namespace("shop")
        gone = obj("v1", "Namespace", "shop", labels={names.INJECT_LABEL: "enabled"})
        gone["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
        cluster.api.seed(gone)
        await settle()
        before = cluster.writes()
        cluster.api.remove(BUNDLE_PATH)
        await settle(60)
        assert cluster.writes() == before


@virtual
async def test_system_and_control_plane_namespaces_get_nothing() -> None:
    cluster = Cluster()
    for name in ("kube-system", "autotls"):
        cluster.opted_in(name)
        cluster.account(name, "web")
        cluster.pod(name, "pod", "web", sidecar=True)
    async with cluster.leading():
        assert cluster.secret("kube-system", "web") is None
        assert cluster.secret("autotls", "web") is None


@virtual
async def test_a_deleted_identity_is_back_at_once() -> None:
    cluster = shop()
    async with cluster.leading():
        cluster.api.remove(SECRET_PATH)
        await settle()
        assert cluster.judged("shop", "web")


@virtual
async def test_a_corrupted_identity_is_repaired_at_once() -> None:
    cluster = shop()
    async with cluster.leading():
        for key in ("tls.crt", "tls.key", "ca.crt"):
            secret = cluster.api.get(SECRET_PATH)
            broken = {**secret["data"], key: base64.b64encode(b"garbage").decode()}
            secret["metadata"]["managedFields"] = [{"manager": "autotls-ca"}]
            cluster.api.seed({**secret, "data": broken})
            await settle()
            assert cluster.judged("shop", "web"), key


@virtual
async def test_a_foreign_secret_of_our_name_is_untouched_and_reported_once() -> None:
    cluster = shop()
    foreign = obj("v1", "Secret", "autotls-identity-web", "shop") | {"type": "Opaque", "data": {"x": "eA=="}}
    cluster.api.seed(foreign)
    before = cluster.api.get(SECRET_PATH)
    async with cluster.leading() as controller:
        await asyncio.sleep(3600)
        assert cluster.api.get(SECRET_PATH) == before
        assert controller.foreign_count == 1
        events = cluster.events("ForeignObject")
        assert len(events) == 1
        assert events[0]["regarding"]["name"] == "autotls-identity-web"
        assert events[0].get("series") is None
        cluster.api.remove(SECRET_PATH)
        await asyncio.sleep(600)
        assert cluster.judged("shop", "web")
        assert controller.foreign_count == 0


@virtual
async def test_a_foreign_object_is_no_longer_counted_where_nobody_needs_an_identity() -> None:
    cluster = shop()
    cluster.account("shop", "api")
    cluster.api.seed(obj("v1", "Secret", "autotls-identity-web", "shop") | {"type": "Opaque", "data": {"x": "eA=="}})
    cluster.api.seed(obj("v1", "ConfigMap", "autotls-trust-bundle", "shop") | {"data": {"mine": "1"}})
    async with cluster.leading() as controller:
        assert controller.foreign_count == 2
        cluster.api.seed(obj("v1", "Namespace", "shop", labels={names.INJECT_LABEL: names.INJECT_DISABLED}))
        await asyncio.sleep(900)
        assert controller.foreign_count == 0
        assert cluster.api.get(SECRET_PATH)["data"] == {"x": "eA=="}


@virtual
async def test_labels_alone_do_not_make_a_secret_ours() -> None:
    cluster = shop()
    cluster.api.seed(
        obj("v1", "Secret", "autotls-identity-web", "shop", labels={
            names.MANAGED_BY_LABEL: names.MANAGED_BY, names.CONTROL_PLANE_LABEL: "autotls",
        }) | {"type": "kubernetes.io/tls", "data": {"tls.crt": "", "tls.key": ""}}
    )  # fmt: skip
    before = cluster.api.get(SECRET_PATH)
    async with cluster.leading() as controller:
        assert cluster.api.get(SECRET_PATH) == before
        assert controller.foreign_count == 1


@virtual
async def test_a_foreign_config_map_is_untouched_and_reported() -> None:
    cluster = shop()
    cluster.api.seed(obj("v1", "ConfigMap", "autotls-trust-bundle", "shop") | {"data": {"mine": "1"}})
    before = cluster.api.get(BUNDLE_PATH)
    async with cluster.leading() as controller:
        await asyncio.sleep(900)
        assert cluster.api.get(BUNDLE_PATH) == before
        assert controller.foreign_count == 1


@virtual
async def test_an_identity_goes_when_its_account_is_gone_and_no_pod_uses_it() -> None:
    cluster = shop()
    cluster.pod("shop", "web-1", "web", sidecar=True)
    async with cluster.leading():
        cluster.api.remove("/api/v1/namespaces/shop/serviceaccounts/web")
        await asyncio.sleep(3600)
        assert cluster.judged("shop", "web")
        cluster.api.remove("/api/v1/namespaces/shop/pods/web-1")
        await asyncio.sleep(30)
        assert cluster.judged("shop", "web")
        await asyncio.sleep(60)
        assert cluster.secret("shop", "web") is None
        assert cluster.api.listed("configmaps", "shop") == []


@virtual
async def test_an_identity_goes_when_its_namespace_opts_out_but_not_under_a_pod_that_asks() -> None:
    cluster = shop()
    cluster.account("shop", "api")
    cluster.pod("shop", "api-1", "api", labels={names.INJECT_LABEL: "enabled"})
    async with cluster.leading():
        cluster.api.seed(obj("v1", "Namespace", "shop", labels={names.INJECT_LABEL: "disabled"}))
        await asyncio.sleep(120)
        assert cluster.secret("shop", "web") is None
        assert cluster.judged("shop", "api")


@virtual
async def test_an_account_that_comes_back_within_a_minute_keeps_its_secret() -> None:
    cluster = shop()
    async with cluster.leading():
        before = cluster.api.get(SECRET_PATH)
        cluster.api.remove("/api/v1/namespaces/shop/serviceaccounts/web")
        await asyncio.sleep(30)
        cluster.account("shop", "web")
        await asyncio.sleep(120)
        assert cluster.api.get(SECRET_PATH) == before


@virtual
async def test_an_idle_identity_of_an_unlabelled_namespace_stays_until_it_would_be_renewed() -> None:
    cluster = Cluster()
    cluster.namespace("shop")
    cluster.account("shop", "web")
    cluster.pod("shop", "job", "web", labels={names.INJECT_LABEL: "enabled"})
    async with cluster.leading():
        before = cluster.api.get(SECRET_PATH)
        cluster.api.remove("/api/v1/namespaces/shop/pods/job")
        await asyncio.sleep(10 * 3600)
        assert cluster.api.get(SECRET_PATH) == before
        await asyncio.sleep(7 * 3600)
        assert cluster.secret("shop", "web") is None


@virtual
async def test_a_restart_makes_no_root_and_issues_nothing() -> None:
    cluster = shop()
    async with cluster.leading():
        pass
    before = cluster.writes()
    root = cluster.api.get(ROOT_PATH)
    for _ in range(3):
        async with cluster.leading():
            await asyncio.sleep(60)
    assert cluster.writes() == before
    assert cluster.api.get(ROOT_PATH) == root


@virtual
async def test_racing_replicas_end_with_one_root_and_one_issuer() -> None:
    cluster = shop()
    from ca.controller import Controller
    from ca.edge import Edge
    from tests.ca.harness import clock

    edge = Edge.of(cluster.api, cluster.config, clock)
    both = [Controller(edge, cluster.api, instance=name, jitter=lambda: 0.5) for name in ("a", "b")]
    cluster.api.faults.latency_s = 0.05
    tasks = [asyncio.create_task(one.run()) for one in both]
    await asyncio.sleep(60)
    trusts = [one.keeper.trust for one in both]
    assert trusts[0] is not None and trusts[1] is not None
    assert trusts[0].bundle == trusts[1].bundle and len(trusts[0].bundle.roots) == 1
    assert trusts[0].issuer.authority == trusts[1].issuer.authority
    cluster.controller = both[0]
    assert cluster.judged("shop", "web")
    settled = cluster.writes()
    await asyncio.sleep(3600)
    assert cluster.writes() == settled
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@virtual
async def test_renewal_happens_by_itself_and_only_when_due() -> None:
    cluster = shop()
    async with cluster.leading():
        first = cluster.api.get(SECRET_PATH)
        await asyncio.sleep(14.5 * 3600)  # due after 14.8 to 16 h: two thirds of 24 h, less up to a twentieth of it
        assert cluster.api.get(SECRET_PATH) == first
        await asyncio.sleep(2 * 3600)
        second = cluster.api.get(SECRET_PATH)
        assert second["data"]["tls.crt"] != first["data"]["tls.crt"]
        assert second["metadata"]["uid"] == first["metadata"]["uid"]


@virtual
async def test_lives_of_seconds_pass_without_a_moment_of_distrust() -> None:
    cluster = shop(short_lives())
    async with cluster.leading():
        roots: set[bytes] = set()
        for _ in range(4000):
            await asyncio.sleep(1)
            assert cluster.judged("shop", "web") or await _soon(cluster)
            roots.add(cluster.trust.bundle.roots[0].public_bytes(_DER))
        assert len(roots) >= 2
        assert cluster.api.get(BUNDLE_PATH)["data"]["ca.crt"] == cluster.trust.bundle.pem.decode()


async def _soon(cluster: Cluster) -> bool:
    await settle(0.3)
    return cluster.judged("shop", "web")


@virtual
async def test_an_hour_without_an_api_server_loses_nothing() -> None:
    cluster = shop()
    async with cluster.leading():
        first = cluster.api.get(SECRET_PATH)
        cluster.api.faults.down = True
        cluster.api.drop_watches()
        await asyncio.sleep(1800)
        cluster.api.remove(SECRET_PATH)
        cluster.account("shop", "new")
        await asyncio.sleep(1800)
        asked = len(cluster.api.requests)
        assert asked < 3600
        cluster.api.faults.down = False
        await asyncio.sleep(90)
        assert cluster.judged("shop", "web") and cluster.judged("shop", "new")
        assert first["data"] != cluster.api.get(SECRET_PATH)["data"]
        assert len(cluster.trust.bundle.roots) == 1


@virtual
async def test_a_terminating_namespace_is_an_outcome_and_no_storm() -> None:
    cluster = shop()
    cluster.api.terminate_namespace("shop")
    async with cluster.leading():
        await asyncio.sleep(3600)
    tries = [r for r in cluster.writes() if r == ("POST", "/api/v1/namespaces/shop/secrets")]
    assert 1 <= len(tries) <= 3600 / 225 + 2


@virtual
async def test_a_full_quota_is_tried_again_slowly_and_holds_up_nobody() -> None:
    cluster = shop()
    cluster.opted_in("full")
    cluster.account("full", "web")

    async def refuse(verb: str, path: str, body: bytes | None) -> None:
        if verb == "POST" and path == "/api/v1/namespaces/full/secrets":
            raise ForbiddenError(403, "Forbidden", "exceeded quota: secrets, requested: 1, used: 5, limited: 5")

    cluster.api.faults.before = refuse
    async with cluster.leading():
        assert cluster.judged("shop", "web")
        await asyncio.sleep(1000)
        cluster.api.faults.before = None
        await asyncio.sleep(301)
        assert cluster.judged("full", "web")
    assert len([r for r in cluster.writes() if r == ("POST", "/api/v1/namespaces/full/secrets")]) <= 7


@virtual
async def test_a_deleted_root_is_restored_and_not_replaced() -> None:
    cluster = shop()
    async with cluster.leading():
        before = cluster.api.get(ROOT_PATH)["data"]
        cluster.api.remove(ROOT_PATH)
        await settle(2)
        assert cluster.api.get(ROOT_PATH)["data"] == before
        assert len(cluster.trust.bundle.roots) == 1


@virtual
async def test_a_spoiled_root_is_left_alone_and_work_goes_on_with_what_was_good() -> None:
    cluster = shop()
    async with cluster.leading() as controller:
        good = cluster.api.get(ROOT_PATH)
        spoiled = {**good, "data": {**good["data"], "tls.key": base64.b64encode(b"garbage").decode()}}
        cluster.api.seed(spoiled)
        await settle(2)
        assert "autotls-root" in controller.keeper.fault and "garbage" not in controller.keeper.fault
        assert cluster.api.get(ROOT_PATH)["data"] == spoiled["data"]
        cluster.account("shop", "later")
        await settle()
        assert cluster.judged("shop", "later")
        cluster.api.seed(good)
        await settle(2)
        assert controller.keeper.fault == ""


@virtual
async def test_a_spoiled_root_at_the_start_is_never_written_over() -> None:
    cluster = shop()
    spoiled = obj("v1", "Secret", "autotls-root", "autotls") | {
        "type": "kubernetes.io/tls",
        "data": {"tls.crt": "eA=="},
    }
    cluster.api.seed(spoiled)
    before = cluster.api.get(ROOT_PATH)
    async with cluster.leading() as controller:
        await asyncio.sleep(600)
        assert controller.keeper.trust is None and controller.keeper.fault
        assert cluster.api.get(ROOT_PATH) == before
        assert cluster.secret("shop", "web") is None


@virtual
async def test_a_deleted_issuer_is_replaced_without_reissuing_anything() -> None:
    cluster = shop()
    async with cluster.leading():
        before = cluster.api.get(SECRET_PATH)
        issuer = cluster.api.get(ISSUER_PATH)["data"]
        cluster.api.remove(ISSUER_PATH)
        await settle(2)
        assert cluster.api.get(ISSUER_PATH)["data"] != issuer
        await asyncio.sleep(60)
        assert cluster.api.get(SECRET_PATH) == before
        assert cluster.judged("shop", "web")


def external(issuer: Any, root: Any) -> dict[str, Any]:
    from ca.authority import issuer_data
    from mesh.svid import TrustBundle

    data = issuer_data(issuer, TrustBundle.of([root.certificate]))
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return obj("v1", "Secret", "autotls-issuer", "autotls") | {"type": "kubernetes.io/tls", "data": encoded}


@virtual
async def test_an_issuer_of_somebody_else_is_only_read_and_followed() -> None:
    from tests.ca.authorities import a_root, an_issuer

    cluster = shop(MeshConfig(identity=IdentityConfig(external_issuer=True)))
    root = a_root()
    async with cluster.leading() as controller:
        assert "autotls-issuer" in controller.keeper.fault
        assert "autotls-issuer" in controller.unready
        assert cluster.secret("shop", "web") is None
        cluster.api.seed(external(an_issuer(root), root))
        await settle(2)
        assert controller.unready == ""
        assert cluster.judged("shop", "web")
        other = a_root()
        cluster.api.seed(external(an_issuer(other), other))
        await settle(2)
        assert cluster.trust.bundle.roots == (other.certificate,)
        assert cluster.judged("shop", "web")
        good = cluster.api.get(ISSUER_PATH)
        cluster.api.seed({**good, "data": {**good["data"], "tls.key": "eA=="}})
        await settle(2)
        assert "tls.key" in controller.keeper.fault
        cluster.account("shop", "later")
        await settle()
        assert cluster.judged("shop", "later")
    assert not [r for r in cluster.writes() if r[1].endswith(("autotls-issuer", "autotls-root"))]


@virtual
async def test_a_bug_about_one_object_does_not_stop_the_others() -> None:
    cluster = shop()
    cluster.account("shop", "odd")

    async def break_odd(verb: str, path: str, body: bytes | None) -> None:
        if verb == "POST" and body and b"autotls-identity-odd" in body and b'"kind":"Secret"' in body:
            raise RuntimeError("a bug")

    cluster.api.faults.before = break_odd
    async with cluster.leading():
        assert cluster.judged("shop", "web")
        assert cluster.secret("shop", "odd") is None
        cluster.api.faults.before = None
        await asyncio.sleep(301)
        assert cluster.judged("shop", "odd")
