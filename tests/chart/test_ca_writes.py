"""The legal writes of the CA, with its own token, pass RBAC and the ValidatingAdmissionPolicies of a real API server.

They are built by the functions that the CA uses, so a change there that the policies would refuse fails here.
"""

import asyncio
import json
from datetime import timedelta

import msgspec
import pytest

from ca.bundle import trust_bundle_config_map
from ca.issuer import make_root, new_key
from ca.profile import Lifetimes
from ca.registration import ca_bundle_patch, strict_registration
from ca.secret import identity_secret, tls_secret
from kube.apply import apply, create, delete, merge_patch, path_of
from kube.client import Api
from kube.events import Recorder, Regarding
from kube.kinds import MUTATING_WEBHOOK_CONFIGURATIONS, MutatingWebhookConfiguration
from kube.lease import Elector, LeaseTiming
from mesh import names
from mesh.config import IdentityConfig
from tests.chart.chart import NAMESPACE, render
from tests.chart.conftest import DEADLINE_S, until
from tests.chart.objects import DATA, NOW, OWNER, SHOP, root, secret

pytestmark = pytest.mark.apiserver


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
    timing = LeaseTiming(duration_s=150, renew_deadline_s=100, retry_period_s=0.05)
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
