"""Who needs an identity."""

import msgspec
import pytest

from ca.demand import Account, Demand, Need
from mesh import names
from mesh.config import MeshConfig
from mesh.pod import Namespace, Pod
from tests.ca.harness import a_pod, obj

WEB = Account("shop", "web")


def namespace(label: str | None, **metadata: str) -> Namespace:
    made = obj("v1", "Namespace", "shop", labels={names.INJECT_LABEL: label} if label else {})
    made["metadata"] |= metadata
    return msgspec.convert(made, Namespace)


def pod(label: str | None = None, *, sidecar: bool = False, phase: str = "Running", account: str = "web") -> Pod:
    labels = {names.INJECT_LABEL: label} if label else {}
    return msgspec.convert(a_pod("shop", "pod", account, labels=labels, sidecar=sidecar, phase=phase), Pod)


def demand(label: str | None, *, exists: bool, user: Pod | None = None) -> Demand:
    made = Demand(MeshConfig(excluded_namespaces=("excluded",)))
    made.namespace_changed("shop", namespace(label))
    if exists:
        made.account_changed(WEB, exists=True)
    if user:
        made.pod_changed("shop/pod", user)
    return made


CASES = {
    "opted in, exists, no pod": (demand("enabled", exists=True), Need.WANTED),
    "opted in, gone, no pod": (demand("enabled", exists=False), Need.NONE),
    "opted in, gone, but a pod still carries the sidecar": (
        demand("enabled", exists=False, user=pod(sidecar=True)),
        Need.WANTED,
    ),
    "opted in, gone, its pod has ended": (
        demand("enabled", exists=False, user=pod(sidecar=True, phase="Succeeded")),
        Need.NONE,
    ),
    "opted out, exists, no pod": (demand("disabled", exists=True), Need.NONE),
    "opted out, but a pod asks": (demand("disabled", exists=True, user=pod("enabled")), Need.WANTED),
    "opted out, a plain pod runs as it": (demand("disabled", exists=True, user=pod()), Need.NONE),
    "no label, exists, no pod": (demand(None, exists=True), Need.IDLE),
    "no label, a pod asks": (demand(None, exists=True, user=pod("enabled")), Need.WANTED),
    "no label, a pod is opted out but was injected by hand": (
        demand(None, exists=True, user=pod("disabled", sidecar=True)),
        Need.WANTED,
    ),
}


@pytest.mark.parametrize(("state", "need"), CASES.values(), ids=CASES.keys())
def test_need(state: Demand, need: Need) -> None:
    assert state.need(WEB) is need


def test_only_a_change_of_the_label_makes_work() -> None:
    state = demand("enabled", exists=True)
    assert state.namespace_changed("shop", namespace("enabled", uid="other")) == ()
    assert state.namespace_changed("shop", namespace("disabled")) == (WEB,)


def test_a_terminating_namespace_wants_nothing_new() -> None:
    state = demand("enabled", exists=True)
    state.namespace_changed("shop", namespace("enabled", deletionTimestamp="2026-01-01T00:00:00Z"))
    assert state.need(WEB) is not Need.WANTED


def test_a_pod_that_repeats_itself_makes_no_work() -> None:
    state = demand("enabled", exists=True)
    assert state.pod_changed("shop/pod", pod("enabled")) == (WEB,)
    assert state.pod_changed("shop/pod", pod("enabled")) == ()
    assert state.pod_changed("shop/pod", pod("enabled", account="api")) == (WEB, Account("shop", "api"))
    assert state.pod_changed("shop/pod", None) == (Account("shop", "api"),)


@pytest.mark.parametrize("name", ["kube-system", "excluded", "autotls"])
def test_excluded_namespaces_want_nothing(name: str) -> None:
    state = Demand(MeshConfig(excluded_namespaces=("excluded",)))
    state.namespace_changed(name, namespace("enabled"))
    state.account_changed(Account(name, "web"), exists=True)
    made = a_pod(name, "pod", "web", sidecar=True)
    state.pod_changed(f"{name}/pod", msgspec.convert(made, Pod))
    assert state.need(Account(name, "web")) is Need.NONE
