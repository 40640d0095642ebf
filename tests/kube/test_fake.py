"""The API server in memory keeps the promises that `test_apiserver.py` shows of the real one."""

from typing import Any

import msgspec
import pytest

from kube import errors
from kube.apply import apply, create, delete, merge_patch, path_of, replace
from kube.kinds import ConfigMap
from kube.read import get, list_all
from tests.fakes.clock import run_virtual
from tests.fakes.kubeapi import FakeApi
from tests.fakes.selectors import matcher

REGISTRATION = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "MutatingWebhookConfiguration",
    "metadata": {"name": "autotls"},
    "webhooks": [{"name": "pods.autotls.io", "failurePolicy": "Ignore", "clientConfig": {"service": {"name": "w"}}}],
}


def config_map(**data: str) -> dict[str, Any]:
    metadata = {"name": "m", "namespace": "shop"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def test_apply_owns_keeps_conflicts_and_removes_as_the_real_one() -> None:
    async def main() -> None:
        api = FakeApi()
        path = path_of(config_map())
        await apply(api, config_map(a="1", b="1"), manager="ca")
        version = api.version
        await apply(api, config_map(a="1", b="1"), manager="ca")
        assert api.version == version, "the same again writes nothing"
        with pytest.raises(errors.ConflictError, match=r'conflict with "ca": .data.a'):
            await apply(api, config_map(a="2"), manager="other", force=False)
        await apply(api, config_map(a="2"), manager="other")
        await apply(api, config_map(), manager="ca")
        assert api.get(path)["data"] == {"a": "2"}, "b went with its only owner, a has another"

    run_virtual(main())


def test_apply_to_one_field_of_a_list_item_leaves_the_others() -> None:
    async def main() -> None:
        api = FakeApi()
        api.seed(REGISTRATION, manager="helm")
        bundle = {"webhooks": [{"name": "pods.autotls.io", "clientConfig": {"caBundle": "QQ=="}}]}
        await apply(api, {**{k: REGISTRATION[k] for k in ("apiVersion", "kind", "metadata")}, **bundle}, manager="ca")
        (webhook,) = api.get(path_of(REGISTRATION))["webhooks"]
        assert webhook["failurePolicy"] == "Ignore"
        assert webhook["clientConfig"] == {"service": {"name": "w"}, "caBundle": "QQ=="}

    run_virtual(main())


def test_preconditions_and_versions_are_checked() -> None:
    async def main() -> None:
        api = FakeApi()
        path = path_of(config_map())
        first = msgspec.json.decode(await create(api, config_map(a="1"), manager="x"))
        await merge_patch(api, path, {"data": {"a": None, "b": "2"}}, manager="x")
        assert api.get(path)["data"] == {"b": "2"}
        with pytest.raises(errors.ConflictError):
            await replace(api, first, manager="x")
        with pytest.raises(errors.ConflictError):
            await delete(api, path, resource_version=first["metadata"]["resourceVersion"])
        with pytest.raises(errors.AlreadyExistsError):
            await create(api, config_map(), manager="x")
        await delete(api, path, uid=first["metadata"]["uid"])
        with pytest.raises(errors.NotFoundError):
            await get(api, path, ConfigMap)
        with pytest.raises(errors.ConflictError):
            await apply(api, {**first, "data": {}}, manager="x")

    run_virtual(main())


def test_dry_runs_and_terminating_namespaces_store_nothing() -> None:
    async def main() -> None:
        api = FakeApi()
        await apply(api, config_map(a="1"), manager="x", dry_run=True)
        api.terminate_namespace("shop")
        with pytest.raises(errors.ForbiddenError) as caught:
            await create(api, config_map(), manager="x")
        assert caught.value.namespace_terminating
        assert await list_all(api, "/api/v1/configmaps", ConfigMap) == ()

    run_virtual(main())


@pytest.mark.parametrize(
    ("labels", "fields", "expected"),
    [
        ("app=web", "", True),
        ("app==web,tier!=db", "", True),
        ("app in (api, web),!tier", "", True),
        ("app notin (api, web)", "", False),
        ("app", "metadata.name=m", True),
        ("", "spec.nodeName!=n1", False),
        ("!app", "", False),
    ],
)
def test_selectors_read_as_kubernetes_reads_them(labels: str, fields: str, expected: bool) -> None:
    pod = {"metadata": {"name": "m", "labels": {"app": "web"}}, "spec": {"nodeName": "n1"}}
    assert matcher(labels, fields)(pod) is expected
