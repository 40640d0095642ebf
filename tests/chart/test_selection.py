"""The API server's own reading of the selectors and matchConditions.

All eight entries are registered as one, failing closed, with an address where nobody listens: a pod that an entry
matches is refused, and the refusal names the entry. Nothing has to answer, and dry-run makes nothing.
"""

import asyncio
import json
import re
import socket
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import msgspec
import pytest

from kube.apply import apply, create, delete, path_of
from kube.client import Api
from kube.errors import AlreadyExistsError, ApiError
from mesh import names
from mesh.config import MeshConfig, Mode
from mesh.pod import Namespace, ObjectMeta, Pod
from tests.chart.conftest import until
from tests.chart.test_registrations import INJECT, MODES, Labels, entries, every_combination, wanted
from webhook.decision import Inject, decide

pytestmark = pytest.mark.apiserver

_CALLED: Final = re.compile(r'failed calling webhook "([^"]+)"')
CONTAINER: Final = {"name": "web", "image": "web"}


@pytest.fixture
def nobody() -> Iterator[str]:
    """A URL where nobody listens: the port is bound, so that nothing else can take it."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"https://127.0.0.1:{bound.getsockname()[1]}/mutate"


def namespace_name(inject: str | None, mode: str | None) -> str:
    return f"inject-{inject or 'absent'}-tls-{mode or 'absent'}"


async def make_namespaces(api: Api) -> None:
    for inject in INJECT:
        for mode in MODES:
            labels = Labels(inject, None, mode, None).of_namespace()
            del labels["kubernetes.io/metadata.name"]
            name = namespace_name(inject, mode)
            item = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
            try:
                await create(api, item, manager="test")
            except AlreadyExistsError:
                continue


async def called(api: Api, namespace: str, labels: dict[str, str], **changes: Any) -> str | None:
    """The name of the entry that the API server calls for a pod; None if it calls none."""
    spec = {"containers": [CONTAINER], "automountServiceAccountToken": False, **changes.get("spec", {})}
    metadata = {"name": "web", "labels": labels, "annotations": changes.get("annotations", {})}
    body = msgspec.json.encode({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    try:
        await api.request("POST", f"/api/v1/namespaces/{namespace}/pods", query=(("dryRun", "All"),), body=body)
    except ApiError as error:
        match = _CALLED.search(error.message)
        assert match, error.message
        return match[1]
    return None


async def register(api: Api, url: str, default: str) -> dict[str, Any]:
    """All eight entries, in force on return."""
    item = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "selection-test"},
        "webhooks": [
            {**entry, "failurePolicy": "Fail", "clientConfig": {"url": url}}
            for _, entry in entries(f"--set=mode={default}")
        ],
    }
    await apply(api, item, manager="test")

    async def in_force() -> bool:
        entry = await called(api, namespace_name("enabled", None), {})
        return entry is not None and f".{default}." in entry

    await until(in_force)
    return item


async def service_accounts_exist(api: Api) -> bool:
    """The controller manager makes them a moment after their namespace; no pod is admitted before."""
    answer = json.loads(
        await api.request("GET", "/api/v1/serviceaccounts", query=(("fieldSelector", "metadata.name=default"),))
    )
    found = {item["metadata"]["namespace"] for item in answer["items"]}
    return found >= {namespace_name(inject, mode) for inject in INJECT for mode in MODES}


@pytest.mark.parametrize("default", ["optional", "strict"])
async def test_api_server_calls_for_exactly_the_pods_that_the_decision_wants(
    admin: Api, nobody: str, default: Mode
) -> None:
    await make_namespaces(admin)
    await until(lambda: service_accounts_exist(admin))
    item = await register(admin, nobody, default)
    mode_of = {entry["name"]: mode for mode, entry in entries(f"--set=mode={default}")}
    wrong: dict[Labels, tuple[str | None, list[str]]] = {}

    async def check(labels: Labels) -> None:
        namespace = namespace_name(labels.namespace_inject, labels.namespace_mode)
        entry = await called(admin, namespace, labels.of_pod())
        right = wanted(labels, MeshConfig(mode=default))
        if ([mode_of[entry]] if entry else []) != right:
            wrong[labels] = (entry, right)

    try:
        combinations = every_combination()
        while some := list(islice(combinations, 8)):
            await asyncio.gather(*(check(labels) for labels in some))
    finally:
        await delete(admin, path_of(item))
    assert wrong == {}


PODS: Final[dict[str, dict[str, Any]]] = {
    "an ordinary pod": {},
    "host network": {"spec": {"hostNetwork": True}},
    "host network false": {"spec": {"hostNetwork": False}},
    "already injected": {
        "spec": {"initContainers": [{"name": names.PROXY_CONTAINER, "image": "x", "restartPolicy": "Always"}]}
    },
    "an init container of its own": {"spec": {"initContainers": [{"name": "migrate", "image": "x"}]}},
    "a mirror pod": {"annotations": {"kubernetes.io/config.mirror": "hash"}, "spec": {"nodeName": "n"}},
    "another annotation": {"annotations": {"note": "x"}},
    "Windows": {"spec": {"os": {"name": "windows"}}},
    "Linux": {"spec": {"os": {"name": "linux"}}},
    "Windows by node selector": {"spec": {"nodeSelector": {"kubernetes.io/os": "windows"}}},
    "Linux by node selector": {"spec": {"nodeSelector": {"kubernetes.io/os": "linux"}}},
    "another node selector": {"spec": {"nodeSelector": {"disk": "ssd"}}},
    "Linux on a node called Windows": {
        "spec": {"os": {"name": "linux"}, "nodeSelector": {"kubernetes.io/os": "windows"}}
    },
}


async def test_conditions_spare_exactly_the_pods_that_the_decision_skips(admin: Api, nobody: str) -> None:
    await make_namespaces(admin)
    await until(lambda: service_accounts_exist(admin))
    namespace = namespace_name("enabled", None)
    item = await register(admin, nobody, "optional")
    try:
        found = {title: await called(admin, namespace, {}, **pod) is not None for title, pod in PODS.items()}
    finally:
        await delete(admin, path_of(item))
    owner = Namespace(metadata=ObjectMeta(name=namespace, labels={names.INJECT_LABEL: names.INJECT_ENABLED}))
    assert found == {title: isinstance(decide(parsed(pod), owner, MeshConfig()), Inject) for title, pod in PODS.items()}


def parsed(pod: dict[str, Any]) -> Pod:
    metadata = {"name": "web", "annotations": pod.get("annotations")}
    return msgspec.convert({"metadata": metadata, "spec": {"containers": [CONTAINER], **pod.get("spec", {})}}, Pod)
