"""Who is injected, who is not, and in which words."""

from typing import Any

import pytest

from mesh import names
from mesh.config import MeshConfig
from mesh.kubelet import KubeletVersion
from mesh.pod import Namespace, ObjectMeta
from tests.webhook.pods import CONFIG, OPTED_IN, container, decision_for, inject_for, labelled, namespace, pod
from webhook.decision import PSS_ENFORCE_LABEL, Deny, Inject, Skip, SkipReason, decide

ENABLED = {names.INJECT_LABEL: "enabled"}
DISABLED = {names.INJECT_LABEL: "disabled"}


def skipped(decision: Any) -> SkipReason:
    assert isinstance(decision, Skip), decision
    assert decision.message
    assert decision.message.isascii()
    return decision.reason


def test_pod_in_an_opted_in_namespace_is_injected() -> None:
    decision = decision_for()
    assert isinstance(decision, Inject)
    assert decision.redirect
    assert decision.warnings == ()
    assert decision.reason == "injected"


@pytest.mark.parametrize(
    ("pod_labels", "namespace_labels", "called", "expected"),
    [
        pytest.param(None, None, False, SkipReason.NOT_OPTED_IN, id="nobody said anything"),
        pytest.param(None, None, True, None, id="nobody said anything but the selectors matched"),
        pytest.param(ENABLED, None, False, None, id="the pod alone opts in"),
        pytest.param(ENABLED, DISABLED, False, None, id="the pod opts in against its namespace"),
        pytest.param(DISABLED, ENABLED, False, SkipReason.OPTED_OUT, id="the pod opts out against its namespace"),
        pytest.param(DISABLED, None, True, SkipReason.OPTED_OUT, id="the pod's opt-out wins over the call"),
        pytest.param(None, DISABLED, True, SkipReason.OPTED_OUT, id="the namespace's opt-out wins over the call"),
        pytest.param({names.INJECT_LABEL: "yes"}, ENABLED, False, None, id="a label that means nothing is absent"),
        pytest.param(
            {names.INJECT_LABEL: "yes"},
            None,
            False,
            SkipReason.NOT_OPTED_IN,
            id="nor does it opt in",
        ),
        pytest.param(
            None, {names.INJECT_LABEL: "Enabled"}, False, SkipReason.NOT_OPTED_IN, id="values are case sensitive"
        ),
    ],
)
def test_the_pods_label_wins_over_its_namespaces(
    pod_labels: dict[str, str] | None,
    namespace_labels: dict[str, str] | None,
    called: bool,
    expected: SkipReason | None,
) -> None:
    decision = decide(pod(labels=pod_labels), labelled(namespace_labels), CONFIG, called=called)
    if expected is None:
        assert isinstance(decision, Inject)
    else:
        assert skipped(decision) is expected


def test_a_label_that_means_nothing_is_warned_about() -> None:
    (warning,) = inject_for(labels={names.INJECT_LABEL: "yes"}).warnings
    assert warning == 'autotls.io/inject: "yes" is not enabled or disabled'


def test_an_unknown_mode_is_warned_about_and_the_default_used() -> None:
    decision = inject_for(labels={names.MODE_LABEL: "strikt"})
    assert decision.settings.mode == "optional"
    assert decision.warnings == ('autotls.io/tls: "strikt" is not optional or strict',)


NATIVE_SIDECAR = container(names.PROXY_CONTAINER, restartPolicy="Always")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"hostNetwork": True}, SkipReason.HOST_NETWORK, id="host network"),
        pytest.param({"os": {"name": "windows"}}, SkipReason.WINDOWS, id="spec.os"),
        pytest.param({"nodeSelector": {"kubernetes.io/os": "windows"}}, SkipReason.WINDOWS, id="Windows node selector"),
        pytest.param(
            {"annotations": {"kubernetes.io/config.mirror": "abc"}}, SkipReason.MIRROR_POD, id="mirror of a static pod"
        ),
        pytest.param({"initContainers": [NATIVE_SIDECAR]}, SkipReason.ALREADY_INJECTED, id="sidecar there"),
        pytest.param(
            {"initContainers": [container(names.PROXY_CONTAINER)]}, SkipReason.NAME_CLASH, id="plain init of our name"
        ),
        pytest.param({"containers": [container(names.PROXY_CONTAINER)]}, SkipReason.NAME_CLASH, id="app of our name"),
        pytest.param({"initContainers": [container(names.INIT_CONTAINER)]}, SkipReason.NAME_CLASH, id="init named so"),
        pytest.param(
            {"volumes": [{"name": names.IDENTITY_VOLUME, "emptyDir": {}}]},
            SkipReason.NAME_CLASH,
            id="volume so",
        ),
        pytest.param({"securityContext": {"runAsUser": 2102}}, SkipReason.UID_CLASH, id="pod runs as the proxy's uid"),
        pytest.param(
            {"containers": [container(securityContext={"runAsUser": 2102})]}, SkipReason.UID_CLASH, id="container does"
        ),
        pytest.param(
            {"initContainers": [container("init", securityContext={"runAsUser": 2102})]},
            SkipReason.UID_CLASH,
            id="init container does",
        ),
        pytest.param({"containers": [container(ports=[{"containerPort": 15100}])]}, SkipReason.PORT_CLASH, id="first"),
        pytest.param({"containers": [container(ports=[{"containerPort": 15199}])]}, SkipReason.PORT_CLASH, id="last"),
        pytest.param(
            {"initContainers": [container("i", restartPolicy="Always", ports=[{"containerPort": 15108}])]},
            SkipReason.PORT_CLASH,
            id="native sidecar's port",
        ),
        pytest.param({"labels": {names.CONTROL_PLANE_LABEL: "autotls"}}, SkipReason.CONTROL_PLANE, id="our own pod"),
    ],
)
def test_pod_that_cannot_be_injected_is_skipped(fields: dict[str, Any], expected: SkipReason) -> None:
    assert skipped(decision_for(**fields)) is expected
    called = decide(pod(**fields), Namespace(metadata=ObjectMeta(name="shop")), CONFIG, called=True)
    assert skipped(called) is expected


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"labels": {names.MESH_LABEL: "autotls"}}, id="forged mesh label"),
        pytest.param({"containers": [container(ports=[{"containerPort": n} for n in (15099, 15200)])]}, id="beside"),
        pytest.param({"securityContext": {"runAsUser": 2101}}, id="another uid"),
        pytest.param({"os": {"name": "linux"}, "nodeSelector": {"kubernetes.io/os": "linux"}}, id="Linux said"),
        pytest.param({"hostNetwork": False}, id="no host network said"),
        pytest.param(
            {"hostPID": True, "hostIPC": True, "hostUsers": False, "shareProcessNamespace": True}, id="shared"
        ),
        pytest.param({"automountServiceAccountToken": False}, id="no token"),
        pytest.param({"restartPolicy": "Never"}, id="a Job's pod"),
    ],
)
def test_pod_that_only_looks_special_is_injected(fields: dict[str, Any]) -> None:
    assert inject_for(**fields).redirect


@pytest.mark.parametrize("name", ["kube-system", "kube-node-lease"])
def test_system_namespaces_are_never_injected(name: str) -> None:
    assert skipped(decide(pod(labels=ENABLED), namespace(name), CONFIG, called=True)) is SkipReason.SYSTEM_NAMESPACE


def test_namespaces_that_the_chart_excludes_are_never_injected() -> None:
    config = MeshConfig(excluded_namespaces=("shop",))
    assert skipped(decision_for(config=config, labels=ENABLED)) is SkipReason.SYSTEM_NAMESPACE


def test_the_control_planes_namespace_is_never_injected() -> None:
    config = MeshConfig(control_plane_namespace="mesh")
    assert skipped(decide(pod(labels=ENABLED), namespace("mesh"), config, called=True)) is SkipReason.CONTROL_PLANE


@pytest.mark.parametrize(("version", "expected"), [("v1.28.15", SkipReason.KUBELET_TOO_OLD), ("v1.29.0", None)])
def test_native_sidecars_need_kubelets_of_1_29(version: str, expected: SkipReason | None) -> None:
    decision = decide(pod(), namespace(), CONFIG, oldest_kubelet=KubeletVersion.parse(version))
    assert (decision.reason if isinstance(decision, Skip) else None) is expected


def test_a_pod_nobody_asked_for_is_not_reported_as_broken() -> None:
    decision = decide(pod(hostNetwork=True), labelled(None), CONFIG)
    assert skipped(decision) is SkipReason.NOT_OPTED_IN


@pytest.mark.parametrize(
    ("level", "default", "redirect"),
    [
        (None, "privileged", True),
        ("privileged", "restricted", True),
        ("baseline", "privileged", False),
        ("restricted", "privileged", False),
        (None, "baseline", False),
        (None, "restricted", False),
        pytest.param("restrictd", "privileged", False, id="no level counts as restricted"),
    ],
)
def test_redirect_is_left_out_where_pod_security_refuses_net_admin(
    level: str | None, default: Any, redirect: bool
) -> None:
    space = namespace(labels={PSS_ENFORCE_LABEL: level} if level else {})
    decision = inject_for(space, MeshConfig(pod_security_default=default))
    assert decision.redirect is redirect
    assert decision.reason == ("injected" if redirect else "no_redirect")


def test_strict_without_redirect_says_what_stays_plaintext() -> None:
    decision = inject_for(namespace(labels={PSS_ENFORCE_LABEL: "restricted", names.MODE_LABEL: "strict"}))
    assert any("outbound traffic stays plaintext" in warning for warning in decision.warnings)


BAD = {"config.autotls.io/log-level": "loud"}
WORDS = 'config.autotls.io/log-level: "loud" is not one of trace, debug, info, warning, error, critical, off'


def test_optional_pod_with_a_bad_setting_is_injected_with_the_default_and_a_warning() -> None:
    decision = inject_for(annotations=BAD)
    assert decision.settings.log_level == "warning"
    assert decision.warnings == (WORDS,)


@pytest.mark.parametrize(
    ("pod_labels", "namespace_labels", "config"),
    [
        ({names.MODE_LABEL: "strict"}, {}, CONFIG),
        (None, {names.MODE_LABEL: "strict"}, CONFIG),
        (None, {}, MeshConfig(mode="strict")),
    ],
)
def test_strict_pod_with_a_bad_setting_is_denied_in_the_same_words(
    pod_labels: dict[str, str] | None, namespace_labels: dict[str, str], config: MeshConfig
) -> None:
    decision = decide(pod(labels=pod_labels, annotations=BAD), namespace(labels=namespace_labels), config)
    assert isinstance(decision, Deny)
    assert WORDS in decision.message


def test_optional_pod_in_a_strict_namespace_is_not_denied() -> None:
    space = namespace(labels={names.MODE_LABEL: "strict"})
    assert inject_for(space, labels={names.MODE_LABEL: "optional"}, annotations=BAD).settings.mode == "optional"


def test_pod_level_resources_that_cannot_hold_the_sidecar_skip_the_pod() -> None:
    small = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "2", "memory": "512Mi"}}
    app = container(resources={"requests": {"cpu": "95m", "memory": "8Mi"}})
    decision = decision_for(containers=[app], resources=small)
    assert skipped(decision) is SkipReason.POD_RESOURCES_TOO_SMALL
    assert isinstance(decision, Skip)
    assert "cpu" in decision.message


def test_pod_level_resources_that_hold_the_sidecar_do_not() -> None:
    roomy = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}}
    app = container(resources={"requests": {"cpu": "95m", "memory": "8Mi"}})
    assert inject_for(containers=[app], resources=roomy)


def test_the_namespace_of_the_request_counts_when_the_pod_names_none() -> None:
    nameless = pod(labels=None)
    assert skipped(decide(nameless, Namespace(metadata=ObjectMeta(name="kube-system", labels=OPTED_IN)), CONFIG)) is (
        SkipReason.SYSTEM_NAMESPACE
    )


def test_reasons_are_words_that_fit_a_metric_label() -> None:
    assert all(reason.value.replace("_", "").isalpha() and reason.value.islower() for reason in SkipReason)
