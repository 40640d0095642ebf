"""QoS and pod-level resources, checked against the API server's rules written down a second time."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.quantity import Quantity
from mesh.settings import default_settings
from tests.webhook.pods import CONFIG, container, inject_for, pod
from webhook.resources import is_guaranteed, pod_level_shortage, sidecar_resources

FULL = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}


def compute_pod_qos(spec: dict[str, Any]) -> str:
    """ComputePodQOS of k8s.io/kubernetes pkg/apis/core/v1/helper/qos/qos.go, line by line."""
    holders = [spec["resources"]] if spec.get("resources") else []
    if not holders:
        holders = [c.get("resources") or {} for c in spec["containers"] + spec.get("initContainers", [])]
    requests: dict[str, int] = {}
    limits: dict[str, int] = {}
    guaranteed = True
    for holder in holders:
        for name, text in (holder.get("requests") or {}).items():
            if name in ("cpu", "memory") and Quantity.parse(text).nano > 0:
                requests[name] = requests.get(name, 0) + Quantity.parse(text).nano
        found: set[str] = set()
        for name, text in (holder.get("limits") or {}).items():
            if name in ("cpu", "memory") and Quantity.parse(text).nano > 0:
                found.add(name)
                limits[name] = limits.get(name, 0) + Quantity.parse(text).nano
        if found != {"cpu", "memory"}:
            guaranteed = False
    if not requests and not limits:
        return "BestEffort"
    if guaranteed and requests == limits:
        return "Guaranteed"
    return "Burstable"


AMOUNTS = {"cpu": ("0", "100m", "0.1", "1", "1000m"), "memory": ("0", "64Mi", "67108864", "1Gi")}


@st.composite
def resources(draw: st.DrawFn) -> dict[str, dict[str, str]]:
    """Valid resources as the API server stores them: a request for each limit, not above it."""
    found: dict[str, dict[str, str]] = {"requests": {}, "limits": {}}
    for name, amounts in AMOUNTS.items():
        limit = draw(st.none() | st.sampled_from(amounts))
        request = draw(st.none() | st.sampled_from(amounts))
        if limit is not None:
            found["limits"][name] = limit
            if request is None or Quantity.parse(request) > Quantity.parse(limit):
                request = limit
        if request is not None:
            found["requests"][name] = request
    return found


@given(st.lists(resources(), min_size=1, max_size=3), st.lists(resources(), max_size=2))
def test_guaranteed_means_what_the_api_server_means(apps: list[Any], inits: list[Any]) -> None:
    spec = {
        "containers": [container(f"c{i}", resources=r) for i, r in enumerate(apps)],
        "initContainers": [container(f"i{i}", resources=r) for i, r in enumerate(inits)],
    }
    assert is_guaranteed(pod(**spec)) is (compute_pod_qos(spec) == "Guaranteed")


@given(resources())
def test_pod_level_resources_alone_decide_where_there_are_any(level: Any) -> None:
    spec = {"containers": [container(resources=FULL)], "resources": level}
    if level["requests"] or level["limits"]:
        assert is_guaranteed(pod(**spec)) is (compute_pod_qos(spec) == "Guaranteed")


def test_limits_alone_make_a_manifest_guaranteed() -> None:
    assert is_guaranteed(pod(containers=[container(resources={"limits": FULL["limits"]})]))


@pytest.mark.parametrize("chosen", [False, True], ids=["default limits", "a chosen CPU limit"])
def test_guaranteed_pods_get_requests_equal_to_limits(chosen: bool) -> None:
    annotations = {"config.autotls.io/proxy-cpu-limit": "250m"} if chosen else None
    settings = inject_for(annotations=annotations).settings
    ours = sidecar_resources(settings, guaranteed=True)
    assert (ours.cpu_request, ours.memory_request) == (ours.cpu_limit, ours.memory_limit)
    assert ours.cpu_request == ("250m" if chosen else "100m")
    assert ours.memory_limit == CONFIG.proxy.resources.memory_limit


@pytest.mark.parametrize(
    ("level", "apps", "expected"),
    [
        ({}, [], None),
        ({"limits": {"cpu": "500m"}}, [], "cpu limit is above"),
        ({"limits": {"memory": "128Mi"}}, [], "memory limit is above"),
        ({"requests": {"memory": "60Mi"}}, [{"requests": {"memory": "16Mi"}}], "request more memory"),
        ({"requests": {"memory": "64Mi"}}, [{"requests": {"memory": "16Mi"}}], None),
        pytest.param(
            {"limits": {"cpu": "1", "memory": "1Gi"}},
            [{"limits": {"cpu": "995m"}}],
            "request more cpu",
            id="a limit stands for the request that is missing",
        ),
    ],
)
def test_what_does_not_fit_into_the_pods_own_resources_is_named(
    level: dict[str, Any], apps: list[dict[str, Any]], expected: str | None
) -> None:
    spec = pod(containers=[container(f"c{i}", resources=r) for i, r in enumerate(apps)], resources=level).spec
    ours = sidecar_resources(default_settings(CONFIG, "optional"), guaranteed=False)
    shortage = pod_level_shortage(spec, ours, redirect=True)
    assert (shortage is None) if expected is None else (shortage is not None and expected in shortage)


def test_init_containers_count_with_the_sidecars_started_before_them() -> None:
    ours = sidecar_resources(default_settings(CONFIG, "optional"), guaranteed=False)
    init = container("migrate", resources={"requests": {"memory": "100Mi"}})
    level = {"requests": {"memory": "147Mi"}}
    assert pod_level_shortage(pod(initContainers=[init], resources=level).spec, ours, redirect=True)
    level = {"requests": {"memory": "148Mi"}}
    assert pod_level_shortage(pod(initContainers=[init], resources=level).spec, ours, redirect=True) is None


def test_quantities_that_are_none_never_break_a_decision() -> None:
    odd = {"requests": {"cpu": "much"}, "limits": {"cpu": "much", "memory": "lots"}}
    assert inject_for(containers=[container(resources=odd)])
    assert inject_for(containers=[container(resources=odd)], resources=odd)
