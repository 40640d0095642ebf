"""What holds of every injection: it only adds, once, and any bytes get an answer."""

import asyncio
import base64
import copy
import json
from typing import Any

import jsonpatch
from hypothesis import example, given
from hypothesis import strategies as st

from mesh import names
from mesh.config import MeshConfig
from mesh.kubelet import KubeletVersion
from mesh.pod import Namespace
from mesh.spiffe import TrustDomain
from tests.fixtures.admission.goldens import VERSIONS, review_path
from tests.fixtures.admission.workloads import CASES
from tests.webhook.asgi import call
from tests.webhook.pods import CONFIG, as_pod, namespace
from webhook.app import build_app
from webhook.decision import PSS_ENFORCE_LABEL, Inject, Skip, SkipReason, decide
from webhook.patch import build_patch

IDENTITY = TrustDomain.parse("cluster.local").workload("shop", "app")

NAME = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
KEY = st.from_regex(r"([a-z~/]{1,6}/)?[A-Za-z0-9~]{1,8}", fullmatch=True)
TEXT = st.text(max_size=12)
MAPS = st.none() | st.dictionaries(KEY, TEXT, max_size=4)
AMOUNT = st.sampled_from(["10m", "1", "64Mi", "1Gi", "0"])
RESOURCES = st.fixed_dictionaries(
    {},
    optional={
        "requests": st.dictionaries(st.sampled_from(["cpu", "memory", "example.com/gpu"]), AMOUNT),
        "limits": st.dictionaries(st.sampled_from(["cpu", "memory"]), AMOUNT),
    },
)
CONTAINER = st.fixed_dictionaries(
    {"name": NAME, "image": TEXT},
    optional={
        "env": st.lists(st.fixed_dictionaries({"name": NAME, "value": TEXT}), max_size=3),
        "ports": st.none() | st.lists(st.fixed_dictionaries({"containerPort": st.integers(1, 65535)}), max_size=3),
        "resources": RESOURCES,
        "securityContext": st.fixed_dictionaries({}, optional={"runAsUser": st.integers(0, 3000)}),
        "restartPolicy": st.sampled_from(["Always"]),
        "x-unknown": TEXT,
    },
)
PODS = st.builds(
    lambda metadata, spec: {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec},
    st.fixed_dictionaries(
        {"name": NAME}, optional={"labels": MAPS, "annotations": MAPS, "finalizers": st.just(["a/b"])}
    ),
    st.fixed_dictionaries(
        {"containers": st.lists(CONTAINER, min_size=1, max_size=3)},
        optional={
            "initContainers": st.none() | st.lists(CONTAINER, max_size=3),
            "volumes": st.none() | st.lists(st.fixed_dictionaries({"name": NAME}), max_size=3),
            "serviceAccountName": NAME,
            "securityContext": st.fixed_dictionaries({}, optional={"runAsNonRoot": st.booleans()}),
            "x-unknown": TEXT,
        },
    ),
)
LEVELS = st.sampled_from(["privileged", "baseline", "restricted"])


def without_additions(pod: dict[str, Any], original: dict[str, Any]) -> dict[str, Any]:
    """`pod` without what an injection adds by name; containers that went empty go back to what they were."""
    pod = copy.deepcopy(pod)
    metadata, spec = pod["metadata"], pod["spec"]
    added = {
        "labels": {names.MESH_LABEL},
        "annotations": {names.VERSION_ANNOTATION, names.IDENTITY_ANNOTATION},
    }
    for field, keys in added.items():
        assert keys <= metadata[field].keys()
        # Only pods that declare ports get this one.
        gone = keys | {names.PORTS_ANNOTATION}
        metadata[field] = {key: value for key, value in metadata[field].items() if key not in gone}
        _restore(metadata, field, original["metadata"])
    for field, taken in (
        ("initContainers", {names.INIT_CONTAINER, names.PROXY_CONTAINER}),
        ("volumes", {names.IDENTITY_VOLUME, names.RUN_VOLUME}),
    ):
        spec[field] = [item for item in spec[field] if item["name"] not in taken]
        _restore(spec, field, original["spec"])
    return pod


def _restore(holder: dict[str, Any], field: str, original: dict[str, Any]) -> None:
    if not holder[field] and not original.get(field):
        holder.pop(field)
        if field in original:
            holder[field] = original[field]


@given(PODS, LEVELS)
def test_the_patch_only_adds_what_it_names_and_does_so_once(pod: dict[str, Any], level: str) -> None:
    space = namespace(labels={PSS_ENFORCE_LABEL: level})
    decision = decide(as_pod(pod), space, CONFIG)
    if not isinstance(decision, Inject):
        assert isinstance(decision, Skip)
        return
    patch = list(build_patch(as_pod(pod), IDENTITY, decision, CONFIG))
    assert {operation["op"] for operation in patch} == {"add"}
    patched = jsonpatch.apply_patch(pod, patch)
    assert without_additions(patched, pod) == pod
    first = [container["name"] for container in patched["spec"]["initContainers"]][: 1 + decision.redirect]
    assert first == [names.INIT_CONTAINER, names.PROXY_CONTAINER][1 - decision.redirect :]
    again = decide(as_pod(patched), space, CONFIG)
    assert isinstance(again, Skip)
    assert again.reason is SkipReason.ALREADY_INJECTED


class Cluster:
    """One opted-in namespace; nothing else is known or can be read."""

    oldest_kubelet = KubeletVersion(1, 37)

    def namespace(self, name: str) -> Namespace | None:
        return namespace(name) if name == "shop" else None

    async def read_namespace(self, name: str, *, timeout_s: float) -> Namespace | None:
        return None


APP = build_app(MeshConfig(), Cluster())
REVIEWS = [review_path(VERSIONS[-1], case).read_bytes() for case in CASES if case != "huge"]


def assert_answered(body: bytes) -> None:
    """A clean 4xx, or an AdmissionReview whose patch, if there is one, is whole."""
    status, answer = asyncio.run(call(APP, "POST", "/mutate?timeout=5s", body))
    decoded = json.loads(answer)
    if status != 200:
        assert 400 <= status < 500
        assert decoded["error"]
        return
    assert decoded["kind"] == "AdmissionReview"
    response = decoded["response"]
    assert response["uid"]
    if "patch" in response:
        assert response["allowed"]
        # Bytes that are not UTF-8 pass in strings that nobody reads; an API server cannot send them.
        review = json.loads(body.decode(errors="replace"))
        patched = jsonpatch.apply_patch(review["request"]["object"], base64.b64decode(response["patch"]).decode())
        present = [container.get("name") for container in patched["spec"]["initContainers"]]
        assert names.PROXY_CONTAINER in present
        assert {names.IDENTITY_VOLUME, names.RUN_VOLUME} <= {
            volume.get("name") for volume in patched["spec"]["volumes"]
        }


@given(st.binary(max_size=300))
@example(b"")
@example(b"\xff\xfe")
@example(b"[" * 50_000)
@example(b'{"a":' * 50_000)
@example(b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"\xff"}}')
@example(b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":null}')
@example(b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"\\ud800\\udc00"}}')
def test_any_bytes_get_an_answer(body: bytes) -> None:
    assert_answered(body)


@given(st.sampled_from(REVIEWS), st.data())
def test_damaged_reviews_get_an_answer(body: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(body)))
    length = data.draw(st.integers(0, 40))
    middle = data.draw(st.binary(max_size=40))
    assert_answered(body[:start] + middle + body[start + length :])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON document, as keys and indices."""
    found = [path] if path else []
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


@given(st.sampled_from(REVIEWS), st.data(), JSON)
def test_reviews_with_any_value_anywhere_get_an_answer(body: bytes, data: st.DataObject, value: Any) -> None:
    review = json.loads(body)
    *path, last = data.draw(st.sampled_from(places(review)))
    holder = review
    for key in path:
        holder = holder[key]
    holder[last] = value
    assert_answered(json.dumps(review).encode())
