"""The ValidatingAdmissionPolicies on a real API server, with the CA's own token: legal writes pass, the rest does not.

The legal writes are built by the functions that the CA uses, so a change there that the policies would refuse fails
here.
"""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import msgspec
import pytest

from ca.authority import RootState, first_root
from ca.bundle import trust_bundle_config_map
from ca.issuer import make_root, new_key
from ca.profile import Lifetimes
from ca.registration import ca_bundle_patch, strict_registration
from ca.secret import Manifest, Owner, identity_secret, tls_secret
from kube.apply import apply, create, delete, merge_patch, path_of
from kube.client import Api, connect
from kube.errors import ForbiddenError, NotFoundError
from kube.events import Recorder, Regarding
from kube.kinds import MUTATING_WEBHOOK_CONFIGURATIONS, MutatingWebhookConfiguration
from kube.lease import Elector, LeaseTiming
from mesh import names
from mesh.config import IdentityConfig
from tests.chart.chart import NAMESPACE, render
from tests.chart.conftest import DEADLINE_S, Installed, eventually, until

pytestmark = pytest.mark.apiserver

OWNER: Final = Owner(NAMESPACE)
SHOP: Final = "shop"
DATA: Final = {"tls.crt": b"leaf", "tls.key": b"key", "ca.crt": b"root"}
NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
LABELS: Final = OWNER.labels
Make = Callable[[], Manifest]
"""Objects are made in the tests, not while tests are collected: that must not need helm."""


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
async def admin(enforced: Installed) -> AsyncIterator[Api]:
    async with connect(kubeconfig=enforced.admin_kubeconfig) as api:
        yield api


def secret(name: str, *, namespace: str = SHOP, labels: dict[str, str] = LABELS, **fields: Any) -> Manifest:
    item = tls_secret(OWNER, namespace, name, DATA)
    item["metadata"]["labels"] = labels
    return {**item, **fields}


def config_map(
    *, name: str = "autotls-trust-bundle", namespace: str = SHOP, labels: dict[str, str] = LABELS, **fields: Any
) -> Manifest:
    item = trust_bundle_config_map(OWNER, namespace, root().bundle)
    item["metadata"].update(name=name, labels=labels)
    return {**item, **fields}


def registration(name: str = names.STRICT_REGISTRATION, **changes: Any) -> Manifest:
    """The strict registration from the chart's text, with some fields of its entries changed."""
    text = render().get("ConfigMap", names.STRICT_REGISTRATION_TEMPLATE)["data"]["registration.json"]
    item: Manifest = json.loads(text)
    item["metadata"]["name"] = name
    item["webhooks"] = [{**webhook, **changes} for webhook in item["webhooks"]]
    return item


def root() -> RootState:
    lifetimes = Lifetimes.of(IdentityConfig())
    return first_root(make_root(key=new_key(), serial=1, now=NOW, lifetimes=lifetimes))


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


async def test_ca_applies_renews_and_removes_an_identity(ca: Api) -> None:
    first = identity_secret(OWNER, SHOP, "web", DATA)
    await apply(ca, first, manager=names.CA_FIELD_MANAGER)
    await apply(ca, identity_secret(OWNER, SHOP, "web", {**DATA, "tls.crt": b"new"}), manager=names.CA_FIELD_MANAGER)
    await delete(ca, path_of(first))


async def test_ca_applies_and_removes_an_identity_with_a_cut_name(ca: Api) -> None:
    item = identity_secret(OWNER, SHOP, "a" * 253, DATA)
    await apply(ca, item, manager=names.CA_FIELD_MANAGER)
    await delete(ca, path_of(item))


async def test_ca_makes_its_own_secrets_and_prepares_a_successor_of_the_root(ca: Api) -> None:
    for name in (names.ISSUER_SECRET, names.WEBHOOK_TLS_SECRET, "autotls-discovery-tls"):
        await create(ca, tls_secret(OWNER, NAMESPACE, name, DATA), manager=names.CA_FIELD_MANAGER)
    state = root()
    successor = make_root(
        key=new_key(), serial=2, now=NOW + timedelta(days=1), lifetimes=Lifetimes.of(IdentityConfig())
    )
    prepared = tls_secret(OWNER, NAMESPACE, names.ROOT_SECRET, state.prepared(successor).data())
    await apply(ca, prepared, manager=names.CA_FIELD_MANAGER)


async def test_ca_puts_its_labels_back_on_a_root_that_was_restored(ca: Api, admin: Api) -> None:
    path = path_of(secret(names.ROOT_SECRET, namespace=NAMESPACE))
    await merge_patch(admin, path, {"metadata": {"labels": None}}, manager="restore")
    await apply(ca, tls_secret(OWNER, NAMESPACE, names.ROOT_SECRET, root().data()), manager=names.CA_FIELD_MANAGER)


async def test_ca_says_an_event_and_its_successor_counts_it(ca: Api, admin: Api) -> None:
    """The second finds the Event of the first, so it needs `get` and `patch` beside `create`."""
    about = Regarding(api_version="v1", kind="ServiceAccount", namespace=SHOP, name="web")
    for times in (1, 2):
        recorder = Recorder(ca, names.CA, instance=f"replica-{times}")
        recorder.emit(about, "ForeignSecret", "not ours", "Warning", "Issue")
        writing = asyncio.create_task(recorder.run())
        await until(lambda times=times: counted(admin, "ForeignSecret", times))
        writing.cancel()


async def counted(api: Api, reason: str, times: int) -> bool:
    answer = await api.request("GET", f"/apis/events.k8s.io/v1/namespaces/{SHOP}/events")
    events = [item for item in json.loads(answer)["items"] if item["reason"] == reason]
    return sum(item.get("series", {}).get("count", 1) for item in events) == times


async def test_ca_takes_renews_and_gives_back_its_lease(ca: Api, admin: Api) -> None:
    timing = LeaseTiming(duration_s=15, renew_deadline_s=10, retry_period_s=0.05)
    elector = Elector(ca, namespace=NAMESPACE, name=names.CA_LEASE, identity="one", timing=timing)
    path = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{names.CA_LEASE}"

    async def renewed_at() -> str:
        return json.loads(await admin.request("GET", path))["spec"]["renewTime"]

    async def work() -> None:
        first = await renewed_at()

        async def renewed() -> bool:
            return await renewed_at() != first

        await until(renewed)
        done.set()
        await asyncio.Event().wait()

    done = asyncio.Event()
    leading = asyncio.create_task(elector.run(work))
    async with asyncio.timeout(DEADLINE_S):
        await done.wait()
    leading.cancel()
    await asyncio.wait([leading])
    assert not json.loads(await admin.request("GET", path))["spec"].get("holderIdentity")


async def test_ca_applies_and_removes_a_trust_bundle(ca: Api) -> None:
    item = trust_bundle_config_map(OWNER, SHOP, root().bundle)
    await apply(ca, item, manager=names.CA_FIELD_MANAGER)
    await apply(ca, trust_bundle_config_map(OWNER, SHOP, root().bundle), manager=names.CA_FIELD_MANAGER)
    await delete(ca, path_of(item))


async def test_ca_sets_ca_bundle_then_makes_and_removes_the_strict_registration(ca: Api) -> None:
    bundle = root().bundle
    decode = msgspec.json.Decoder(MutatingWebhookConfiguration).decode
    optional = decode(await ca.request("GET", f"{MUTATING_WEBHOOK_CONFIGURATIONS}/{names.REGISTRATION}"))
    patched = await apply(ca, ca_bundle_patch(optional, bundle), manager=names.CA_FIELD_MANAGER)
    assert all(webhook.client_config.ca_bundle for webhook in decode(patched).webhooks or ())
    text = render().get("ConfigMap", names.STRICT_REGISTRATION_TEMPLATE)["data"]["registration.json"]
    strict = strict_registration(text, OWNER, optional, bundle)
    await apply(ca, strict, manager=names.CA_FIELD_MANAGER)
    await apply(ca, strict_registration(text, OWNER, optional, root().bundle), manager=names.CA_FIELD_MANAGER)
    await delete(ca, path_of(strict))


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


@pytest.mark.parametrize("path", ["/api/v1/namespaces/x", "/api/v1/nodes/x"])
async def test_webhook_may_read_what_it_decides_on(enforced: Installed, path: str) -> None:
    async with connect(kubeconfig=enforced.kubeconfig_of(names.WEBHOOK)) as api:
        with pytest.raises(NotFoundError):
            await api.request("GET", path)
