"""Tokens and rights, asked of a real API server as discovery and `autotls tap` ask."""

import asyncio
from pathlib import Path

import pytest

from cluster.apiserver import ApiServer
from discovery.errors import TapRefusedError
from discovery.tap_access import Access
from kube.apply import create
from kube.client import Api, HttpApi, connect
from kube.reviews import is_allowed, issue_token, user_of
from mesh import names
from tests.kube.conftest import kubeconfig_with

pytestmark = pytest.mark.apiserver

ACCOUNT = "system:serviceaccount:default:tapper"
RBAC = "rbac.authorization.k8s.io/v1"


async def make(api: Api, *objs: dict[str, object]) -> None:
    for obj in objs:
        await create(api, obj, manager="test")


async def test_a_token_is_good_for_its_audience_and_the_verb_for_its_namespace(api: HttpApi) -> None:
    await make(
        api,
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "tapper", "namespace": "default"}},
        {
            "apiVersion": RBAC,
            "kind": "ClusterRole",
            "metadata": {"name": names.TAP},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": [names.TAP_VERB]}],
        },
        {
            "apiVersion": RBAC,
            "kind": "RoleBinding",
            "metadata": {"name": "tapper", "namespace": "default"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": names.TAP},
            "subjects": [{"kind": "ServiceAccount", "name": "tapper", "namespace": "default"}],
        },
    )
    token = await issue_token(api, namespace="default", service_account="tapper", audience=names.TAP, lifetime_s=600)
    assert await user_of(api, token) is None  # the API server would not take it
    user = await user_of(api, token, audience=names.TAP)
    assert user is not None
    assert (user.username, "system:serviceaccounts" in (user.groups or ())) == (ACCOUNT, True)

    async def allowed() -> bool:
        return await is_allowed(api, user, verb=names.TAP_VERB, resource="pods", namespace="default")

    # The API server's authorizer learns of a new binding by a watch of its own.
    async with asyncio.timeout(60):
        while not await allowed():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    for verb, namespace in ((names.TAP_VERB, "kube-system"), (names.TAP_VERB, ""), ("get", "default")):
        assert not await is_allowed(api, user, verb=verb, resource="pods", namespace=namespace)
    access = Access(api)
    await access.check(await access.user_of(token), "default")
    with pytest.raises(TapRefusedError, match="needs the verb 'tap' on pods in all namespaces"):
        await access.check(user, "")
    with pytest.raises(TapRefusedError, match="knows nobody by this token"):
        await access.user_of("no-token-at-all")


async def test_a_kubeconfig_has_a_token_to_show_or_a_client_certificate(server: ApiServer, tmp_path: Path) -> None:
    for user, shown in (({"token": "abc"}, "abc"), ({}, "")):
        kubeconfig = kubeconfig_with(tmp_path / "kubeconfig", server, user)
        async with connect(kubeconfig=str(kubeconfig)) as client:
            assert await client.bearer_token() == shown
