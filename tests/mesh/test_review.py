"""AdmissionReview in and out."""

import base64
import json

import pytest

from mesh.review import (
    MAX_WARNING_LENGTH,
    ReviewError,
    decode_review,
    encode_admitted,
    encode_denied,
    plain_text,
    warning_texts,
)

POD = {"metadata": {"name": "a", "namespace": "pods-own"}, "spec": {"containers": [{"name": "c"}]}}


def body(**request: object) -> bytes:
    return json.dumps(
        {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {"uid": "u", "kind": {"version": "v1", "kind": "Pod"}, "operation": "CREATE", "object": POD}
            | request,
        }
    ).encode()


def test_namespace_is_the_requests_else_the_pods() -> None:
    assert decode_review(body(namespace="requests")).namespace == "requests"
    assert decode_review(body()).namespace == "pods-own"


@pytest.mark.parametrize(("dry_run", "expected"), [(True, True), (False, False), (None, False)])
def test_dry_run_is_read(dry_run: bool | None, expected: bool) -> None:
    assert decode_review(body(dryRun=dry_run)).dry_run is expected


def test_errors_name_the_place_and_no_value() -> None:
    pod = {"metadata": {}, "spec": {"containers": "hunter2"}}
    with pytest.raises(ReviewError, match=r"\$\.request\.object\.spec\.containers") as error:
        decode_review(body(object=pod))
    assert "hunter2" not in str(error.value)


def test_answers_are_reviews_of_the_same_version() -> None:
    for answer in (encode_admitted("u", "injected", patch=b"[]"), encode_denied("u", "invalid_setting", "no")):
        decoded = json.loads(answer)
        assert (decoded["apiVersion"], decoded["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
        assert decoded["response"]["uid"] == "u"


def test_patch_travels_as_base64_with_its_type() -> None:
    response = json.loads(encode_admitted("u", "injected", patch=b'[{"op":"add"}]'))["response"]
    assert base64.b64decode(response["patch"]) == b'[{"op":"add"}]'
    assert response["patchType"] == "JSONPatch"


def test_admission_without_a_patch_has_no_patch_type() -> None:
    response = json.loads(encode_admitted("u", "host_network"))["response"]
    assert response == {"uid": "u", "allowed": True, "auditAnnotations": {"reason": "host_network"}}


def test_denial_carries_a_status() -> None:
    response = json.loads(encode_denied("u", "invalid_setting", "line\nline"))["response"]
    assert response["status"] == {"message": "line?line", "reason": "Invalid", "code": 422}
    assert response["allowed"] is False


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("tab\tnew\nline", "tab?new?line"),
        ("grün", "gr?n"),
        ("\x1b[31m", "?[31m"),
        ("a" * 30, "a" * 17 + "..."),
    ],
)
def test_text_becomes_one_line_of_ascii(text: str, expected: str) -> None:
    assert plain_text(text, 20) == expected


def test_few_short_warnings() -> None:
    warnings = warning_texts(["w" * 500] * 20)
    assert len(warnings) == 16
    assert all(len(warning) <= MAX_WARNING_LENGTH for warning in warnings)
    assert warnings[-1] == "autotls: and 5 more"
