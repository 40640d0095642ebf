"""The operations of a patch for every way in which a pod can hold its lists and maps."""

import copy
import json
from itertools import product
from typing import Any

import jsonpatch
import pytest

from mesh import names
from mesh.spiffe import TrustDomain
from tests.webhook.pods import CONFIG, as_pod, container, namespace, pod_object
from webhook.decision import Inject, decide
from webhook.patch import build_encoded_patch, build_patch, encode_patch, pointer

IDENTITY = TrustDomain.parse("cluster.local").workload("shop", "default")
ABSENT = object()


def patched(data: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    pod = as_pod(data)
    decision = decide(pod, namespace(), CONFIG)
    assert isinstance(decision, Inject)
    patch = list(build_patch(pod, IDENTITY, decision, CONFIG))
    result: dict[str, Any] = jsonpatch.apply_patch(data, patch)
    return result, patch


def with_field(data: dict[str, Any], part: str, field: str, value: Any) -> dict[str, Any]:
    data = copy.deepcopy(data)
    if value is not ABSENT:
        data[part][field] = value
    return data


@pytest.mark.parametrize(
    ("labels", "annotations"),
    list(
        product(
            [ABSENT, None, {}, {"app": "x"}],
            [ABSENT, None, {}, {"a/b~c": "x"}, {names.IDENTITY_ANNOTATION: "forged", names.VERSION_ANNOTATION: "9"}],
        )
    ),
)
def test_maps_absent_null_empty_or_full(labels: Any, annotations: Any) -> None:
    data = with_field(with_field(pod_object(), "metadata", "labels", labels), "metadata", "annotations", annotations)
    metadata = patched(data)[0]["metadata"]
    kept = labels if isinstance(labels, dict) else {}
    assert metadata["labels"] == kept | {names.MESH_LABEL: "autotls"}
    kept = annotations if isinstance(annotations, dict) else {}
    assert metadata["annotations"] == kept | {
        names.VERSION_ANNOTATION: "0.1.0",
        names.IDENTITY_ANNOTATION: "spiffe://cluster.local/ns/shop/sa/default",
    }


@pytest.mark.parametrize("inits", [ABSENT, None, [], [container("a"), container("b", restartPolicy="Always")]])
@pytest.mark.parametrize("volumes", [ABSENT, None, [], [{"name": "data", "emptyDir": {}}]])
def test_lists_absent_null_empty_or_full(inits: Any, volumes: Any) -> None:
    data = with_field(with_field(pod_object(), "spec", "initContainers", inits), "spec", "volumes", volumes)
    spec = patched(data)[0]["spec"]
    own = [item["name"] for item in inits] if isinstance(inits, list) else []
    assert [item["name"] for item in spec["initContainers"]] == [names.INIT_CONTAINER, names.PROXY_CONTAINER, *own]
    own = [item["name"] for item in volumes] if isinstance(volumes, list) else []
    assert [item["name"] for item in spec["volumes"]] == [*own, names.IDENTITY_VOLUME, names.RUN_VOLUME]
    assert spec["containers"] == data["spec"]["containers"]


def test_encoded_patch_is_the_patch() -> None:
    data = pod_object(labels={"a": "b"}, initContainers=[container("a")])
    decision = decide(as_pod(data), namespace(), CONFIG)
    assert isinstance(decision, Inject)
    operations = build_patch(as_pod(data), IDENTITY, decision, CONFIG)
    encoded = build_encoded_patch(as_pod(data), IDENTITY, decision, CONFIG)
    assert json.loads(encoded) == list(operations) == json.loads(encode_patch(operations))


def test_changing_one_patch_changes_no_other() -> None:
    """The parts are encoded once and shared; what callers get must be their own."""
    first = patched(pod_object())[1]
    first[2]["value"][0]["env"].clear()
    assert patched(pod_object())[1][2]["value"][0]["env"]


def test_settings_of_one_pod_do_not_leak_into_the_next() -> None:
    loud = patched(pod_object(annotations={"config.autotls.io/log-level": "trace"}))[0]
    quiet = patched(pod_object())[0]
    assert {"name": "AUTOTLS_LOG_LEVEL", "value": "trace"} in loud["spec"]["initContainers"][1]["env"]
    assert {"name": "AUTOTLS_LOG_LEVEL", "value": "warning"} in quiet["spec"]["initContainers"][1]["env"]


def test_secret_is_that_of_the_pods_service_account() -> None:
    (identity, _) = patched(pod_object(serviceAccountName="cart"))[0]["spec"]["volumes"]
    assert identity["projected"]["sources"][0]["secret"]["name"] == "autotls-identity-cart"


@pytest.mark.parametrize(("parts", "expected"), [(("a", "b/c~d"), "/a/b~1c~0d"), (("l", 0), "/l/0"), ((), "")])
def test_pointers_are_escaped(parts: tuple[Any, ...], expected: str) -> None:
    assert pointer(*parts) == expected
