"""Which pods the API server sends to the webhook: every combination of labels, against the webhook's own logic."""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import pytest

from mesh import names
from mesh.config import MeshConfig, Mode
from mesh.pod import Container, Namespace, ObjectMeta, Pod, PodSpec
from mesh.settings import settings_for
from tests.chart.chart import NAMESPACE, render, selects
from webhook.app import MUTATE_PATH, STRICT_PATH
from webhook.decision import Skip, decide

INJECT: Final = (None, "enabled", "disabled", "garbage")
MODES: Final = (None, "optional", "strict", "garbage")
FAILURE_POLICY: Final[Mapping[str, str]] = {"optional": "Ignore", "strict": "Fail"}


@dataclass(frozen=True, slots=True)
class Labels:
    """What a pod and its namespace say."""

    namespace_inject: str | None
    pod_inject: str | None
    namespace_mode: str | None
    pod_mode: str | None

    def of_namespace(self, name: str = "shop") -> dict[str, str]:
        return {"kubernetes.io/metadata.name": name, **_labels(self.namespace_inject, self.namespace_mode)}

    def of_pod(self) -> dict[str, str]:
        return {"app": "web", **_labels(self.pod_inject, self.pod_mode)}


def every_combination() -> Iterator[Labels]:
    return (Labels(*values) for values in itertools.product(INJECT, INJECT, MODES, MODES))


@lru_cache(maxsize=8)
def registrations(*values: str) -> dict[str, dict[str, Any]]:
    """The registrations by mode: the chart's, and the one that the CA makes from the chart's text."""
    rendered = render(*values)
    strict = rendered.get("ConfigMap", names.STRICT_REGISTRATION_TEMPLATE)["data"]["registration.json"]
    return {
        "optional": rendered.get("MutatingWebhookConfiguration", names.REGISTRATION),
        "strict": json.loads(strict),
    }


def entries(*values: str) -> list[tuple[str, dict[str, Any]]]:
    return [(mode, entry) for mode, item in registrations(*values).items() for entry in item["webhooks"]]


def matching(labels: Labels, default: str, namespace: str = "shop", *values: str) -> list[str]:
    """The modes of the entries whose selectors match."""
    return [
        mode
        for mode, entry in entries(f"--set=mode={default}", *values)
        if selects(entry["namespaceSelector"], labels.of_namespace(namespace))
        and selects(entry["objectSelector"], labels.of_pod())
    ]


def wanted(labels: Labels, config: MeshConfig, namespace: str = "shop") -> list[str]:
    """The mode that the webhook's own logic gives the pod; nothing if it would leave the pod alone."""
    pod = Pod(
        metadata=ObjectMeta(name="web", namespace=namespace, labels=labels.of_pod()),
        spec=PodSpec(containers=(Container(name="web"),)),
    )
    owner = Namespace(metadata=ObjectMeta(name=namespace, labels=labels.of_namespace(namespace)))
    # Not the decision's own mode: a bad label in strict mode makes it Deny, which the API server must ask for too.
    if isinstance(decide(pod, owner, config), Skip):
        return []
    return [settings_for(pod.metadata, owner.metadata, config)[0].mode]


@pytest.mark.parametrize("default", ["optional", "strict"])
def test_selectors_call_for_exactly_the_pods_that_the_decision_wants(default: Mode) -> None:
    config = MeshConfig(mode=default)
    wrong = {
        labels: (found, right)
        for labels in every_combination()
        if (found := matching(labels, default)) != (right := wanted(labels, config))
    }
    assert wrong == {}


@pytest.mark.parametrize("default", ["optional", "strict"])
def test_no_pod_is_sent_twice(default: Mode) -> None:
    assert all(len(matching(labels, default)) <= 1 for labels in every_combination())


@pytest.mark.parametrize("default", ["optional", "strict"])
def test_every_entry_is_needed(default: Mode) -> None:
    used = {
        entry["name"]
        for labels in every_combination()
        for _, entry in entries(f"--set=mode={default}")
        if selects(entry["namespaceSelector"], labels.of_namespace())
        and selects(entry["objectSelector"], labels.of_pod())
    }
    assert used == {entry["name"] for _, entry in entries(f"--set=mode={default}")}


@pytest.mark.parametrize("namespace", [*sorted(names.SYSTEM_NAMESPACES), NAMESPACE, "monitoring"])
def test_no_label_sends_a_pod_of_an_excluded_namespace(namespace: str) -> None:
    config = MeshConfig(excluded_namespaces=("monitoring",))
    for labels in every_combination():
        assert matching(labels, "optional", namespace, "--set=excludedNamespaces={monitoring}") == []
        assert wanted(labels, config, namespace) == []


def test_each_registration_fails_the_way_its_mode_says() -> None:
    for mode, entry in entries():
        assert entry["failurePolicy"] == FAILURE_POLICY[mode]
        assert entry["name"].endswith(f".{mode}.autotls.io")
        assert entry["sideEffects"] == "None"
        assert entry["reinvocationPolicy"] == "IfNeeded"
        assert 1 <= entry["timeoutSeconds"] <= 5
        assert "caBundle" not in entry["clientConfig"]
        assert entry["clientConfig"]["service"] == {
            "name": names.WEBHOOK,
            "namespace": NAMESPACE,
            "path": {"optional": MUTATE_PATH, "strict": STRICT_PATH}[mode],
            "port": 443,
        }
        assert [rule["operations"] for rule in entry["rules"]] == [["CREATE"]]


def test_strict_registration_is_what_the_ca_may_create() -> None:
    strict = registrations()["strict"]
    assert strict["metadata"]["name"] == names.STRICT_REGISTRATION
    assert (
        strict["metadata"]["labels"].items()
        >= {
            names.MANAGED_BY_LABEL: names.MANAGED_BY,
            names.CONTROL_PLANE_LABEL: NAMESPACE,
        }.items()
    )


def _labels(inject: str | None, mode: str | None) -> dict[str, str]:
    given = {names.INJECT_LABEL: inject, names.MODE_LABEL: mode}
    return {key: value for key, value in given.items() if value is not None}
