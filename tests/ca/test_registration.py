"""What is applied to registrations, and the port for the kubelet."""

import json

import msgspec
import pytest

from ca.errors import AuthorityError
from ca.registration import ca_bundle_patch, holds, strict_registration
from ca.secret import Owner
from kube.kinds import MutatingWebhookConfiguration
from mesh.svid import TrustBundle
from tests.ca.authorities import a_root

OLD, NEW = a_root().certificate, a_root().certificate
BUNDLE = TrustBundle.of([OLD, NEW])


def registration(*bundles: str | None) -> MutatingWebhookConfiguration:
    webhooks = [
        {"name": f"w{number}.autotls.io", "clientConfig": {"caBundle": bundle} if bundle else {}}
        for number, bundle in enumerate(bundles)
    ]
    return msgspec.convert(
        {"metadata": {"name": "autotls", "uid": "u1"}, "webhooks": webhooks}, MutatingWebhookConfiguration
    )


def test_the_patch_names_nothing_but_ca_bundle_and_brings_nothing_back() -> None:
    patch = ca_bundle_patch(registration(None, "x"), BUNDLE)
    assert patch["metadata"] == {"name": "autotls", "uid": "u1"}
    assert [sorted(one) for one in patch["webhooks"]] == [["clientConfig", "name"]] * 2
    assert all(list(one["clientConfig"]) == ["caBundle"] for one in patch["webhooks"])


def test_ca_bundle_holds_old_and_new_roots_and_is_recognized() -> None:
    patch = ca_bundle_patch(registration(None), BUNDLE)
    text = patch["webhooks"][0]["clientConfig"]["caBundle"]
    assert holds(registration(text), BUNDLE)
    assert not holds(registration(text, None), BUNDLE)
    assert not holds(registration(text), TrustBundle.of([NEW]))


def test_the_strict_registration_is_the_template_with_bundle_labels_and_owner() -> None:
    template = json.dumps(
        {
            "metadata": {"name": "anything", "labels": {"team": "a", "app.kubernetes.io/managed-by": "helm"}},
            "webhooks": [{"name": "w", "failurePolicy": "Fail", "clientConfig": {"service": {"name": "s"}}}],
        }
    )
    made = strict_registration(template, Owner("autotls"), registration(None), BUNDLE)
    assert made["metadata"]["name"] == "autotls-strict"
    assert made["metadata"]["labels"] == {"team": "a"} | Owner("autotls").labels
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u1"
    webhook = made["webhooks"][0]
    assert webhook["failurePolicy"] == "Fail" and webhook["clientConfig"]["service"] == {"name": "s"}
    assert webhook["clientConfig"]["caBundle"]


@pytest.mark.parametrize("template", ["", "{", "[]", '{"webhooks": [{}]}', '{"webhooks": "x"}'])
def test_a_template_that_is_none_is_refused_by_name(template: str) -> None:
    with pytest.raises(AuthorityError, match="autotls-strict-registration"):
        strict_registration(template, Owner("autotls"), registration(None), BUNDLE)
