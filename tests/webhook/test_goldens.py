"""What the webhook answers to reviews of real API servers (`make record-fixtures`, `make goldens`)."""

import json
from typing import Any

import jsonpatch
import pytest

from mesh import names
from mesh.review import decode_review
from tests.fixtures.admission.goldens import (
    HERE,
    VERSIONS,
    default_sidecar,
    golden_of,
    golden_path,
    namespace_of,
    patch_of,
    response_to,
    review_path,
)
from tests.fixtures.admission.workloads import CASES
from tests.webhook.pods import CONFIG, as_pod
from webhook.decision import Skip, SkipReason, decide

RECORDED = [pytest.param(version, case, id=f"{version} {case}") for version in VERSIONS for case in CASES]


@pytest.mark.parametrize(("version", "case"), RECORDED)
def test_answer_to_a_recorded_review_is_the_golden_one(version: str, case: str) -> None:
    response = response_to(review_path(version, case).read_bytes(), case)
    assert golden_of(response) == json.loads(golden_path(case).read_bytes())


def test_the_sidecar_is_the_golden_one() -> None:
    assert default_sidecar() == json.loads((HERE / "sidecar.json").read_bytes())


@pytest.mark.parametrize(("version", "case"), RECORDED)
def test_injected_pod_is_left_alone_when_the_webhook_is_called_again(version: str, case: str) -> None:
    body = review_path(version, case).read_bytes()
    review = json.loads(body)
    patch = patch_of(response_to(body, case))
    if patch is None:
        return
    patched: dict[str, Any] = jsonpatch.apply_patch(review["request"]["object"], patch)
    again = decide(as_pod(patched), namespace_of(case), CONFIG, called=True)
    assert isinstance(again, Skip)
    assert again.reason is SkipReason.ALREADY_INJECTED
    review["request"]["object"] = patched
    assert patch_of(response_to(json.dumps(review).encode(), case)) is None


def test_every_version_has_every_case() -> None:
    assert len(VERSIONS) >= 1
    for version in VERSIONS:
        assert {path.name for path in (HERE / version).glob("*.review.json")} == {f"{c}.review.json" for c in CASES}


def test_pods_of_controllers_have_no_namespace_or_name_of_their_own_to_rely_on() -> None:
    """The reason why the request's namespace counts; recorded, not assumed."""
    body = review_path(VERSIONS[-1], "deployment").read_bytes()
    metadata = json.loads(body)["request"]["object"]["metadata"]
    assert "name" not in metadata
    assert metadata["generateName"].startswith("deployment-")
    assert decode_review(body).namespace == "shop"


def test_the_huge_pod_gets_the_same_small_patch() -> None:
    body = review_path(VERSIONS[-1], "huge").read_bytes()
    assert len(body) > 150_000
    response = response_to(body, "huge")
    assert len(response["patch"]) < 10_000
    patched = jsonpatch.apply_patch(json.loads(body)["request"]["object"], patch_of(response))
    assert [container["name"] for container in patched["spec"]["initContainers"]] == [
        names.INIT_CONTAINER,
        names.PROXY_CONTAINER,
    ]
    assert len(patched["spec"]["containers"]) == 30
