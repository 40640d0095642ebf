"""What the policies and RBAC refuse to the CA and the webhook, with their own tokens, on a real API server."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest

from ca.secret import Manifest
from discovery.kinds import ENDPOINT_SLICES, SERVICES
from kube.apply import apply, create, delete, path_of
from kube.client import Api, connect
from kube.errors import ForbiddenError, NotFoundError
from kube.kinds import MUTATING_WEBHOOK_CONFIGURATIONS, NAMESPACES, NODES, PODS
from mesh import names
from tests.chart.chart import NAMESPACE
from tests.chart.conftest import Installed
from tests.chart.objects import SHOP, config_map, registration, secret

pytestmark = [pytest.mark.apiserver, pytest.mark.usefixtures("enforced")]

Make = Callable[[], Manifest]
"""Objects are made in the tests, not while tests are collected: that must not need helm."""


def optional_registration(**changes: Any) -> Callable[[dict[str, Any]], Manifest]:
    """What is applied to the chart's registration: its entries with some fields changed."""

    def manifest(live: dict[str, Any]) -> Manifest:
        return {
            "apiVersion": live["apiVersion"],
            "kind": live["kind"],
            "metadata": {"name": names.REGISTRATION},
            "webhooks": [{**webhook, **changes} for webhook in live["webhooks"]],
        }

    return manifest


async def live_registration(api: Api) -> dict[str, Any]:
    answer = await api.request("GET", f"{MUTATING_WEBHOOK_CONFIGURATIONS}/{names.REGISTRATION}")
    return json.loads(answer)


def token_secret() -> Manifest:
    """With it whoever may read it could become the ServiceAccount."""
    item = secret("autotls-identity-x", type="kubernetes.io/service-account-token", data={})
    item["metadata"]["annotations"] = {"kubernetes.io/service-account.name": "default"}
    return item


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(partial(secret, "payments-db"), "only Secrets autotls-identity-", id="a Secret of another name"),
        pytest.param(token_secret, "only Secrets of type kubernetes.io/tls", id="a token of a ServiceAccount"),
        pytest.param(
            partial(secret, "autotls-identity-x", labels={}), "labelled as its own", id="an identity without labels"
        ),
        pytest.param(
            partial(secret, "autotls-identity-x", labels={names.MANAGED_BY_LABEL: names.MANAGED_BY}),
            "labelled as its own",
            id="an identity with half of the labels",
        ),
        pytest.param(
            partial(secret, "autotls-identity-x", data={"tls.crt": "", "tls.key": "", "run.sh": ""}),
            "only tls.crt, tls.key and ca.crt",
            id="another key in an identity",
        ),
        pytest.param(
            partial(secret, "autotls-identity-x", data={"tls.crt": "", "tls.key": "", "next.key": ""}),
            "only tls.crt, tls.key and ca.crt",
            id="a root's key in an identity",
        ),
        pytest.param(
            partial(secret, names.ROOT_SECRET), "only Secrets autotls-identity-", id="a root in another namespace"
        ),
        pytest.param(
            partial(secret, "payments-db", namespace=NAMESPACE),
            "only Secrets autotls-identity-",
            id="another Secret beside the root",
        ),
        pytest.param(
            partial(config_map, name="kube-root-ca.crt"), "only ConfigMaps autotls-trust-bundle", id="another ConfigMap"
        ),
        pytest.param(partial(config_map, labels={}), "labelled as its own", id="a trust bundle without labels"),
        pytest.param(partial(config_map, data={"Corefile": ""}), "only ca.crt", id="another key in a trust bundle"),
        pytest.param(partial(config_map, data={}), "only ca.crt", id="no key in a trust bundle"),
        pytest.param(
            partial(config_map, binaryData={"ca.crt": "AAAA"}, data={}), "only ca.crt", id="bytes in a trust bundle"
        ),
        pytest.param(partial(registration, "mine"), "only the registration autotls-strict", id="another registration"),
        pytest.param(
            partial(registration, clientConfig={"url": "https://attacker.example/mutate"}),
            "only the Service autotls-webhook",
            id="a registration of a URL",
        ),
        pytest.param(
            partial(registration, clientConfig={"service": {"name": "autotls-webhook", "namespace": SHOP}}),
            "only the Service autotls-webhook",
            id="a registration of a Service elsewhere",
        ),
        pytest.param(
            partial(
                registration,
                rules=[{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["secrets"]}],
            ),
            "only for the creation of pods",
            id="a registration for Secrets",
        ),
        pytest.param(
            partial(
                registration,
                rules=[{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["pods"]}],
            ),
            "only for the creation of pods",
            id="a registration for updates of pods",
        ),
        pytest.param(
            partial(registration, namespaceSelector={}), "system or excluded", id="a registration for every namespace"
        ),
        pytest.param(
            partial(
                registration,
                namespaceSelector={
                    "matchExpressions": [
                        {
                            "key": "kubernetes.io/metadata.name",
                            "operator": "NotIn",
                            "values": ["kube-node-lease", NAMESPACE],
                        }
                    ]
                },
            ),
            "system or excluded",
            id="a registration for kube-system",
        ),
        pytest.param(
            partial(
                registration,
                objectSelector={
                    "matchExpressions": [{"key": names.INJECT_LABEL, "operator": "NotIn", "values": ["disabled"]}]
                },
            ),
            "only for pods that opted in",
            id="a registration for pods that did not opt in",
        ),
    ],
)
async def test_ca_may_not_create(ca: Api, make: Make, words: str) -> None:
    item = make()
    with pytest.raises(ForbiddenError, match="ValidatingAdmissionPolicy") as caught:
        await create(ca, item, manager=names.CA_FIELD_MANAGER)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(
            partial(secret, "autotls-identity-foreign"), "its own already", id="an identity that somebody else made"
        ),
        pytest.param(
            partial(secret, "autotls-identity-other-mesh"), "its own already", id="an identity of another control plane"
        ),
        pytest.param(
            partial(config_map, namespace="default"), "its own already", id="a trust bundle that somebody else made"
        ),
    ],
)
async def test_ca_may_not_take_over(ca: Api, admin: Api, make: Make, words: str) -> None:
    item = make()
    before = await admin.request("GET", path_of(item))
    with pytest.raises(ForbiddenError, match="ValidatingAdmissionPolicy") as caught:
        await apply(ca, item, manager=names.CA_FIELD_MANAGER)
    assert words in caught.value.message
    assert await admin.request("GET", path_of(item)) == before


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(partial(secret, "autotls-identity-foreign"), id="an identity that somebody else made"),
        pytest.param(partial(secret, "payments-db"), id="another Secret"),
        pytest.param(partial(secret, names.ROOT_SECRET, namespace=NAMESPACE), id="the root"),
        pytest.param(partial(config_map, namespace="default"), id="a trust bundle that somebody else made"),
    ],
)
async def test_ca_may_not_delete(ca: Api, admin: Api, make: Make) -> None:
    item = make()
    with pytest.raises(ForbiddenError, match="ValidatingAdmissionPolicy"):
        await delete(ca, path_of(item))
    await admin.request("GET", path_of(item))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(optional_registration(failurePolicy="Fail"), "fail closed", id="to fail closed"),
        pytest.param(
            optional_registration(clientConfig={"url": "https://attacker.example/mutate"}),
            "only the Service autotls-webhook",
            id="to call somebody else",
        ),
        pytest.param(optional_registration(namespaceSelector={}), "system or excluded", id="to reach every namespace"),
        pytest.param(
            lambda live: {
                **live,
                "webhooks": [*live["webhooks"], {**live["webhooks"][0], "name": "one.more.autotls.io"}],
            },
            "add or remove entries",
            id="to have one more entry",
        ),
        pytest.param(lambda live: {**live, "webhooks": live["webhooks"][1:]}, "add or remove", id="to have one less"),
    ],
)
async def test_ca_may_not_change_the_optional_registration(
    ca: Api, change: Callable[[dict[str, Any]], Manifest], words: str
) -> None:
    live = await live_registration(ca)
    body = msgspec.json.encode({"webhooks": change(live)["webhooks"]})
    with pytest.raises(ForbiddenError, match="ValidatingAdmissionPolicy") as caught:
        await ca.request(
            "PATCH",
            f"{MUTATING_WEBHOOK_CONFIGURATIONS}/{names.REGISTRATION}",
            body=body,
            content_type="application/merge-patch+json",
        )
    assert words in caught.value.message
    assert await live_registration(ca) == live


async def test_nobody_else_is_bound_by_the_policies(admin: Api) -> None:
    for item in (secret("payments-key"), config_map(name="settings"), registration("somebody-elses")):
        item["metadata"]["labels"] = {}
        await create(admin, item, manager="admin")
        await delete(admin, path_of(item))


@pytest.mark.parametrize(
    ("service_account", "method", "path"),
    [
        (names.CA, "DELETE", f"{MUTATING_WEBHOOK_CONFIGURATIONS}/{names.REGISTRATION}"),
        (names.CA, "GET", f"/api/v1/namespaces/{SHOP}/pods/x/log"),
        (names.CA, "DELETE", f"/api/v1/namespaces/{SHOP}/pods/x"),
        (names.CA, "POST", f"/api/v1/namespaces/{SHOP}/serviceaccounts/default/token"),
        (names.CA, "DELETE", f"/api/v1/namespaces/{SHOP}/secrets"),
        (names.CA, "PATCH", "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/autotls-ca-secrets"),
        (names.CA, "GET", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-scheduler"),
        (names.WEBHOOK, "GET", f"/api/v1/namespaces/{NAMESPACE}/secrets/{names.ROOT_SECRET}"),
        (names.WEBHOOK, "GET", f"/api/v1/namespaces/{NAMESPACE}/secrets/{names.WEBHOOK_TLS_SECRET}"),
        (names.WEBHOOK, "GET", "/api/v1/pods"),
        (names.DISCOVERY, "GET", "/api/v1/secrets"),
        (names.DISCOVERY, "GET", f"/api/v1/namespaces/{NAMESPACE}/secrets/{names.DISCOVERY_TLS_SECRET}"),
        (names.DISCOVERY, "GET", f"/api/v1/namespaces/{SHOP}/configmaps"),
        (names.DISCOVERY, "DELETE", f"/api/v1/namespaces/{SHOP}/pods/x"),
        (names.DASHBOARD, "GET", "/api/v1/secrets"),
        (names.DASHBOARD, "GET", f"/api/v1/namespaces/{SHOP}/configmaps"),
        (names.DASHBOARD, "GET", f"/api/v1/namespaces/{SHOP}/pods/x:15120/proxy/metrics"),
        (names.WEBHOOK, "PATCH", f"{MUTATING_WEBHOOK_CONFIGURATIONS}/{names.REGISTRATION}"),
    ],
)
async def test_rbac_refuses_what_is_not_needed(
    enforced: Installed, service_account: str, method: str, path: str
) -> None:
    async with connect(kubeconfig=enforced.kubeconfig_of(service_account)) as api:
        with pytest.raises(ForbiddenError) as caught:
            await api.request(method, path, body=b"{}" if method in ("PATCH", "POST") else None)
    assert "cannot" in caught.value.message


@pytest.mark.parametrize("path", [NAMESPACES, PODS, SERVICES, ENDPOINT_SLICES])
async def test_discovery_may_list_what_it_mirrors(enforced: Installed, path: str) -> None:
    async with connect(kubeconfig=enforced.kubeconfig_of(names.DISCOVERY)) as api:
        assert b'"items"' in await api.request("GET", path)


@pytest.mark.parametrize("path", [PODS, SERVICES, NODES])
async def test_dashboard_may_list_what_it_mirrors(enforced: Installed, path: str) -> None:
    async with connect(kubeconfig=enforced.kubeconfig_of(names.DASHBOARD)) as api:
        assert b'"items"' in await api.request("GET", path)


@pytest.mark.parametrize("path", ["/api/v1/namespaces/x", "/api/v1/nodes/x"])
async def test_webhook_may_read_what_it_decides_on(enforced: Installed, path: str) -> None:
    async with connect(kubeconfig=enforced.kubeconfig_of(names.WEBHOOK)) as api:
        with pytest.raises(NotFoundError):
            await api.request("GET", path)
