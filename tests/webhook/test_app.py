"""The application as the API server sees it: every request gets a sound answer."""

import asyncio
import base64
import json
from typing import Any

import pytest
import structlog
from prometheus_client import REGISTRY

from mesh import names
from mesh.config import MeshConfig
from mesh.kubelet import KubeletVersion
from mesh.pod import Namespace, ObjectMeta
from tests.webhook.asgi import call
from tests.webhook.clusters import FakeCluster
from tests.webhook.pods import labelled, namespace, pod_object
from webhook import app as app_module
from webhook.app import MAX_BODY_BYTES, build_app, deadline_of
from webhook.decision import PSS_ENFORCE_LABEL


def review(pod: dict[str, Any] | None = None, **request: Any) -> bytes:
    return json.dumps(
        {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "u-1",
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "operation": "CREATE",
                "namespace": "shop",
                "object": pod or pod_object(),
                **request,
            },
        }
    ).encode()


async def respond(
    cluster: FakeCluster, body: bytes, target: str = "/mutate", config: MeshConfig | None = None
) -> dict[str, Any]:
    status, answer = await call(build_app(config or MeshConfig(), cluster), "POST", target, body)
    assert status == 200, answer
    decoded = json.loads(answer)
    assert (decoded["apiVersion"], decoded["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response: dict[str, Any] = decoded["response"]
    assert response["uid"] == "u-1"
    return response


def patch_of(response: dict[str, Any]) -> list[dict[str, Any]]:
    assert response["patchType"] == "JSONPatch"
    patch: list[dict[str, Any]] = json.loads(base64.b64decode(response["patch"]))
    return patch


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def broken() -> None:
    raise KeyError("a value from the pod: hunter2")


async def test_injected_pod_gets_a_patch_an_audit_annotation_and_no_warning() -> None:
    before = count("autotls_webhook_admissions_total", result="injected", reason="injected")
    response = await respond(FakeCluster([namespace()]), review())
    assert response["allowed"]
    assert response["auditAnnotations"] == {
        "reason": "injected",
        "identity": "spiffe://cluster.local/ns/shop/sa/default",
    }
    assert "warnings" not in response
    assert {operation["op"] for operation in patch_of(response)} == {"add"}
    assert count("autotls_webhook_admissions_total", result="injected", reason="injected") == before + 1


async def test_skipped_pod_is_admitted_as_it_is_with_the_reason() -> None:
    response = await respond(FakeCluster([namespace()]), review(pod_object(hostNetwork=True)))
    assert response["allowed"]
    assert "patch" not in response
    assert response["auditAnnotations"]["reason"] == "host_network"
    assert response["warnings"][0].startswith("autotls: not injected (host_network)")


async def test_the_oldest_kubelet_is_asked_for() -> None:
    cluster = FakeCluster([namespace()], oldest_kubelet=KubeletVersion(1, 28))
    assert (await respond(cluster, review()))["auditAnnotations"]["reason"] == "kubelet_too_old"


async def test_warnings_are_short_lines_of_ascii() -> None:
    annotations = {f"config.autotls.io/unknown-{number}": "é\n" * 50 for number in range(40)}
    response = await respond(FakeCluster([namespace()]), review(pod_object(annotations=annotations)))
    assert len(response["warnings"]) == 16
    assert response["warnings"][-1] == "autotls: and 25 more"
    for warning in response["warnings"]:
        assert warning.isascii() and warning.isprintable() and len(warning) <= 120


async def test_strict_pod_with_a_bad_setting_is_denied_in_words() -> None:
    pod = pod_object(labels={names.MODE_LABEL: "strict"}, annotations={"config.autotls.io/inbound": "both"})
    response = await respond(FakeCluster([namespace()]), review(pod))
    assert not response["allowed"]
    assert response["status"]["code"] == 422
    assert 'config.autotls.io/inbound: "both" is not one of direct, observed' in response["status"]["message"]


async def test_identity_uses_the_requests_namespace_when_the_pod_has_none() -> None:
    pod = pod_object(serviceAccountName="cart")
    del pod["metadata"]["namespace"]
    response = await respond(FakeCluster([namespace()]), review(pod))
    assert response["auditAnnotations"]["identity"] == "spiffe://cluster.local/ns/shop/sa/cart"


async def test_unknown_namespace_is_read_once_with_half_a_second() -> None:
    cluster = FakeCluster(readable=[labelled({PSS_ENFORCE_LABEL: "baseline"})])
    response = await respond(cluster, review(), "/mutate?timeout=5s")
    assert cluster.reads == [("shop", 0.5)]
    assert response["auditAnnotations"]["reason"] == "no_redirect"


async def test_reading_a_namespace_never_takes_more_than_half_the_deadline() -> None:
    cluster = FakeCluster()
    await respond(cluster, review(), "/mutate?timeout=300ms")
    ((_, timeout_s),) = cluster.reads
    assert timeout_s <= 0.15


async def test_namespace_that_cannot_be_read_is_assumed_to_enforce_pod_security() -> None:
    """Injecting NET_ADMIN on a guess could keep the pod from being created."""
    response = await respond(FakeCluster(), review())
    assert response["auditAnnotations"]["reason"] == "no_redirect"


@pytest.mark.parametrize(
    "cluster",
    [
        pytest.param(FakeCluster(), id="namespace cannot be read"),
        pytest.param(FakeCluster([namespace()]), id="mirror is older than the label"),
    ],
)
async def test_strict_path_makes_pods_strict_whatever_we_know(cluster: FakeCluster) -> None:
    response = await respond(cluster, review(), "/mutate/strict")
    proxy = patch_of(response)[2]["value"][-1]
    assert proxy["name"] == names.PROXY_CONTAINER
    assert {"name": "AUTOTLS_MODE", "value": "strict"} in proxy["env"]
    bad = review(pod_object(annotations={"config.autotls.io/inbound": "both"}))
    assert not (await respond(cluster, bad, "/mutate/strict"))["allowed"]
    assert (await respond(cluster, bad, "/mutate"))["allowed"]


@pytest.mark.parametrize(
    "request_fields",
    [
        pytest.param({"operation": "UPDATE"}, id="update of a pod"),
        pytest.param({"operation": "DELETE", "object": None}, id="deletion"),
        pytest.param({"subResource": "ephemeralcontainers"}, id="subresource"),
        pytest.param({"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}}, id="another kind"),
        pytest.param(
            {"kind": {"group": "x", "version": "v1", "kind": "Other"}, "object": {"spec": {"containers": 3}}},
            id="another kind that does not read as a pod",
        ),
    ],
)
async def test_reviews_about_something_else_are_admitted_untouched(request_fields: dict[str, Any]) -> None:
    response = await respond(FakeCluster([namespace()]), review(**request_fields))
    assert response["allowed"]
    assert "patch" not in response
    assert response["auditAnnotations"] == {"reason": "not_a_pod_creation"}


@pytest.mark.parametrize(
    ("body", "place"),
    [
        pytest.param(b"", "truncated", id="nothing"),
        pytest.param(b"{", "truncated", id="half"),
        pytest.param(review(operation="CREATE", object={"spec": {}}), "$.request.object", id="pod without metadata"),
        pytest.param(
            review({"metadata": {}, "spec": {"containers": {}}}), "$.request.object.spec.containers", id="wrong type"
        ),
        pytest.param(review(uid=""), "$.request.uid", id="no uid"),
        pytest.param(review(uid=7), "$.request.uid", id="uid of another type"),
        pytest.param(review(object=None), "$.request.object", id="creation without an object"),
        pytest.param(review().replace(b"io/v1", b"io/v1beta1"), "$.apiVersion", id="beta version"),
        pytest.param(b'{"kind":"List"}', "apiVersion", id="another document"),
        pytest.param(b'{"a":' * 100_000, "deeply", id="nested beyond reason"),
    ],
)
async def test_what_is_no_review_gets_a_400_that_names_the_place(body: bytes, place: str) -> None:
    before = count("autotls_webhook_refused_requests_total", status="400")
    status, answer = await call(build_app(MeshConfig(), FakeCluster([namespace()])), "POST", "/mutate", body)
    assert status == 400
    assert place in json.loads(answer)["error"]
    assert count("autotls_webhook_refused_requests_total", status="400") == before + 1


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/mutate", 405), ("POST", "/other", 404)])
async def test_other_methods_and_paths_are_refused(method: str, path: str, status: int) -> None:
    assert (await call(build_app(MeshConfig(), FakeCluster()), method, path))[0] == status


async def test_announced_body_beyond_the_limit_is_refused_unread() -> None:
    headers = [(b"content-length", str(MAX_BODY_BYTES + 1).encode())]
    app = build_app(MeshConfig(), FakeCluster())
    # No part ever comes: reading one would wait for ever.
    status, _ = await asyncio.wait_for(call(app, "POST", "/mutate", [], headers=headers, complete=False), 60)
    assert status == 413


async def test_unannounced_body_is_refused_at_the_limit() -> None:
    part = b" " * (1024 * 1024)
    app = build_app(MeshConfig(), FakeCluster())
    status, _ = await asyncio.wait_for(call(app, "POST", "/mutate", [part] * 9, complete=False), 60)
    assert status == 413


async def test_body_in_parts_is_put_together() -> None:
    body = review()
    app = build_app(MeshConfig(), FakeCluster([namespace()]))
    status, answer = await call(app, "POST", "/mutate", [body[:100], body[100:1000], b"", body[1000:]])
    assert status == 200
    assert json.loads(answer)["response"]["patch"]


async def test_body_that_stops_coming_ends_at_the_deadline() -> None:
    app = build_app(MeshConfig(), FakeCluster())
    status, _ = await call(app, "POST", "/mutate?timeout=1ms", [b"{"], complete=False)
    assert status == 408


async def test_client_that_goes_away_is_no_fault() -> None:
    app = build_app(MeshConfig(), FakeCluster())
    status, _ = await call(app, "POST", "/mutate", [b"{"], complete=False, disconnect=True)
    assert status == 400


async def test_fault_of_ours_admits_an_optional_pod_unpatched_and_is_counted() -> None:
    before = count("autotls_webhook_faults_total", type="KeyError")
    response = await respond(FakeCluster(on_lookup=broken), review())
    assert response["allowed"]
    assert "patch" not in response
    assert "internal fault" in response["warnings"][0]
    assert count("autotls_webhook_faults_total", type="KeyError") == before + 1
    assert count("autotls_webhook_admissions_total", result="failed", reason="internal_fault") >= 1


@pytest.mark.parametrize(
    ("target", "labels", "config"),
    [
        pytest.param("/mutate/strict", {}, MeshConfig(), id="the strict registration called"),
        pytest.param("/mutate", {names.MODE_LABEL: "strict"}, MeshConfig(), id="the pod says so"),
        pytest.param("/mutate", {}, MeshConfig(mode="strict"), id="the chart says so"),
    ],
)
async def test_fault_of_ours_refuses_a_strict_pod(target: str, labels: dict[str, str], config: MeshConfig) -> None:
    response = await respond(FakeCluster(on_lookup=broken), review(pod_object(labels=labels)), target, config)
    assert not response["allowed"]
    assert "internal fault" in response["status"]["message"]


async def test_fault_after_the_namespace_is_known_respects_its_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module.admission, "decide", lambda *_, **__: broken())
    cluster = FakeCluster([namespace(labels={names.MODE_LABEL: "strict"})])
    assert not (await respond(cluster, review()))["allowed"]


async def test_logs_of_a_fault_name_the_place_and_no_value() -> None:
    with structlog.testing.capture_logs() as logs:
        await respond(FakeCluster(on_lookup=broken), review())
    fault = next(entry for entry in logs if entry["event"] == "review_failed")
    assert fault["error"] == "KeyError"
    assert any("broken" in place for place in fault["at"])
    assert "hunter2" not in str(logs)


async def test_log_of_an_injection_has_fields_and_no_body() -> None:
    pod = pod_object(containers=[{"name": "app", "env": [{"name": "PASSWORD", "value": "hunter2"}]}])
    pod["metadata"]["ownerReferences"] = [{"kind": "ReplicaSet", "name": "app-1", "uid": "x", "controller": True}]
    with structlog.testing.capture_logs() as logs:
        await respond(FakeCluster([namespace()]), review(pod))
    (entry,) = logs
    assert entry["event"] == "pod_injected"
    assert (entry["ns"], entry["owner"], entry["uid"], entry["reason"]) == (
        "shop",
        "ReplicaSet/app-1",
        "u-1",
        "injected",
    )
    assert "hunter2" not in str(logs)


async def test_log_that_cannot_be_written_costs_no_pod_its_sidecar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def info(self, *_: Any, **__: Any) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(app_module, "_log", Closed())
    assert "patch" in await respond(FakeCluster([namespace()]), review())


async def test_service_account_that_is_no_identity_is_a_fault_not_a_crash() -> None:
    response = await respond(FakeCluster([namespace()]), review(pod_object(serviceAccountName="a/b")))
    assert response["allowed"]
    assert "patch" not in response


@pytest.mark.parametrize(
    ("query", "seconds"),
    [
        (b"timeout=5s", 4.9),
        (b"timeout=1m0s", 29.9),
        (b"timeout=500ms", 0.4),
        (b"timeout=10ms", 0.005),
        (b"a=b&timeout=2.5s", 2.4),
        (b"", 9.9),
        (b"timeout=soon", 9.9),
        (b"timeout=5", 9.9),
    ],
)
def test_deadline_is_a_little_before_the_callers(query: bytes, seconds: float) -> None:
    assert deadline_of(query) == pytest.approx(seconds)


def test_assumed_namespace_keeps_its_name() -> None:
    space = app_module.admission.assumed_namespace("shop")
    assert space == Namespace(metadata=ObjectMeta(name="shop", labels={PSS_ENFORCE_LABEL: "restricted"}))
