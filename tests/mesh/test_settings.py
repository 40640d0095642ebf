"""What one pod asked for: its own words before its namespace's, before the chart's; bad words reported."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import names
from mesh.config import ConfigError, MeshConfig, ProxyConfig, ResourceValues
from mesh.pod import ObjectMeta
from mesh.quantity import Quantity
from mesh.review import MAX_WARNING_LENGTH
from mesh.settings import SETTINGS, PodSettings, default_settings, mode_of, settings_for

PREFIX = "config.autotls.io/"
CONFIG = MeshConfig(proxy=ProxyConfig(allowed_image_prefixes=("registry.example.com/mesh", "localhost:5000/")))


UNDER = "an image under registry.example.com/mesh, localhost:5000/"


def meta(settings: Mapping[str, str] | None = None, mode: str | None = None) -> ObjectMeta:
    return ObjectMeta(
        labels={names.MODE_LABEL: mode} if mode else None,
        annotations={PREFIX + key: value for key, value in settings.items()} if settings else None,
    )


def read(
    pod: Mapping[str, str] | None = None, namespace: Mapping[str, str] | None = None
) -> tuple[PodSettings, list[str]]:
    settings, errors = settings_for(meta(pod), meta(namespace), CONFIG)
    return settings, [error.message for error in errors]


def test_without_annotations_the_charts_values_hold() -> None:
    settings, errors = read()
    assert errors == []
    assert settings.image == CONFIG.proxy.image
    assert settings.log_level == "warning"
    assert settings.inbound == "direct"
    assert settings.opaque_ports == "25,587,3306,4444,5432,6379,9300,11211"
    assert settings.wait_seconds == 2


def test_annotation_of_the_pod_wins_over_its_namespaces() -> None:
    settings, errors = read({"log-level": "debug"}, {"log-level": "info", "drain-seconds": "60"})
    assert errors == []
    assert (settings.log_level, settings.drain_seconds) == ("debug", 60)


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("log-level", "trace", "log_level", "trace"),
        ("inbound", "observed", "inbound", "observed"),
        ("skip-inbound-ports", " 80, 443 ,8000-8100", "skip_inbound_ports", "80,443,8000-8100"),
        ("skip-outbound-ports", "5432", "skip_outbound_ports", "5432"),
        pytest.param("opaque-ports", "", "opaque_ports", "", id="an empty list takes the default away"),
        ("wait-seconds", "0", "wait_seconds", 0),
        ("drain-seconds", "3600", "drain_seconds", 3600),
        ("reach", " shop, data/db", "reach", "shop,data/db"),
        pytest.param("reach", " * ", "reach", "*", id="a reach without an end"),
        ("proxy-image", "registry.example.com/mesh/proxy:2", "image", "registry.example.com/mesh/proxy:2"),
        ("proxy-image", "registry.example.com/mesh:2", "image", "registry.example.com/mesh:2"),
        ("proxy-image", "localhost:5000/proxy", "image", "localhost:5000/proxy"),
        (
            "proxy-image",
            "registry.example.com/mesh/p@sha256:" + "a" * 64,
            "image",
            "registry.example.com/mesh/p@sha256:" + "a" * 64,
        ),
    ],
)
def test_every_setting_can_be_overridden(name: str, value: str, field: str, expected: Any) -> None:
    settings, errors = read({name: value})
    assert errors == []
    assert getattr(settings, field) == expected


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("log-level", "loud", "one of trace, debug, info, warning, error, critical, off"),
        ("inbound", "Direct", "one of direct, observed"),
        ("skip-inbound-ports", "http", "ports like 80,443,8000-8100"),
        ("skip-inbound-ports", "0", "ports like 80,443,8000-8100"),
        ("skip-inbound-ports", "65536", "ports like 80,443,8000-8100"),
        ("skip-outbound-ports", "90-80", "ports like 80,443,8000-8100"),
        ("opaque-ports", "80,,443", "ports like 80,443,8000-8100"),
        ("opaque-ports", ",".join(["80"] * 129), "a list of at most 128 ports"),
        ("wait-seconds", "3", "an integer from 0 to 2"),
        ("wait-seconds", "1.5", "an integer from 0 to 2"),
        ("drain-seconds", "-1", "an integer from 0 to 3600"),
        ("drain-seconds", "٣", "an integer from 0 to 3600"),
        ("proxy-cpu-request", "much", "a quantity above 0, like 100m or 64Mi"),
        ("proxy-memory-limit", "0", "a quantity above 0, like 100m or 64Mi"),
        ("proxy-memory-limit", "-1Gi", "a quantity above 0, like 100m or 64Mi"),
        ("proxy-image", "docker.io/evil:1", UNDER),
        ("proxy-image", "registry.example.com/meshed/x", UNDER),
        (
            "proxy-image",
            "registry.example.com/mesh/../evil",
            UNDER,
        ),
        ("proxy-image", "registry.example.com/mesh/x y", UNDER),
        ("no-such-thing", "1", "read: there is no such setting"),
    ],
)
def test_bad_value_is_reported_with_what_is_allowed_and_the_default_used(name: str, value: str, allowed: str) -> None:
    settings, errors = read({name: value})
    shown = value if len(value) <= 16 else value[:13] + "..."
    assert errors == [f'{PREFIX}{name}: "{shown}" is not {allowed}']
    assert settings == read()[0]


def test_bad_value_of_the_pod_leaves_its_namespaces_in_force() -> None:
    settings, errors = read({"log-level": "loud"}, {"log-level": "info"})
    assert settings.log_level == "info"
    assert len(errors) == 1


def test_no_image_may_be_chosen_where_the_chart_names_no_prefix() -> None:
    settings, errors = settings_for(meta({"proxy-image": "x/y"}), meta(), MeshConfig())
    assert settings.image == MeshConfig().proxy.image
    assert "the chart names no image prefix" in errors[0].message


def test_a_request_above_the_default_limit_raises_the_limit() -> None:
    settings, errors = read({"proxy-cpu-request": "2", "proxy-memory-request": "1Gi"})
    assert errors == []
    assert (settings.resources.cpu_limit, settings.resources.memory_limit) == ("2", "1Gi")


def test_a_chosen_limit_below_the_request_is_reported() -> None:
    settings, errors = read({"proxy-memory-request": "128Mi", "proxy-memory-limit": "64Mi"})
    assert errors == [f'{PREFIX}proxy-memory-limit: "64Mi" is not at least the request, 128Mi']
    assert (settings.resources.memory_request, settings.resources.memory_limit) == ("128Mi", "256Mi")


def test_limits_are_always_set() -> None:
    """A ResourceQuota on limits refuses a pod with any container that has none."""
    config = MeshConfig(proxy=ProxyConfig(resources=ResourceValues(cpu_limit="", memory_limit="")))
    resources = default_settings(config, "optional").resources
    assert (resources.cpu_limit, resources.memory_limit) == ("1", "48Mi")


@pytest.mark.parametrize(
    ("pod", "namespace", "chart", "expected"),
    [
        (None, None, "optional", "optional"),
        (None, None, "strict", "strict"),
        (None, "strict", "optional", "strict"),
        ("optional", "strict", "optional", "optional"),
        ("strict", None, "optional", "strict"),
        ("nonsense", "strict", "optional", "strict"),
        ("nonsense", "nonsense", "strict", "strict"),
    ],
)
def test_mode_is_the_pods_label_else_its_namespaces_else_the_charts(
    pod: str | None, namespace: str | None, chart: Any, expected: str
) -> None:
    config = MeshConfig(mode=chart)
    assert mode_of(meta(mode=pod), meta(mode=namespace), config) == expected
    assert settings_for(meta(mode=pod), meta(mode=namespace), config)[0].mode == expected


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        (ProxyConfig(resources=ResourceValues(cpu_request="much")), "proxy.resources.cpuRequest"),
        (ProxyConfig(resources=ResourceValues(memory_limit="-1")), "proxy.resources.memoryLimit"),
        (ProxyConfig(opaque_ports=("http",)), "proxy.opaquePorts"),
    ],
)
def test_bad_value_of_the_chart_is_an_error_that_names_it(proxy: ProxyConfig, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        default_settings(MeshConfig(proxy=proxy), "optional")


ANNOTATIONS = st.dictionaries(
    st.sampled_from(SETTINGS),
    st.text(max_size=30) | st.sampled_from(["10m", "1", "64Mi", "2Gi", "80", "1-2", "observed", "off", "0"]),
    max_size=6,
)


@given(ANNOTATIONS, ANNOTATIONS)
def test_whatever_is_asked_for_the_result_can_run(pod: dict[str, str], namespace: dict[str, str]) -> None:
    settings, errors = settings_for(meta(pod), meta(namespace), CONFIG)
    resources = settings.resources
    for request, limit in (
        (resources.cpu_request, resources.cpu_limit),
        (resources.memory_request, resources.memory_limit),
    ):
        assert Quantity(0) < Quantity.parse(request) <= Quantity.parse(limit)
    assert 0 <= settings.wait_seconds <= 2
    assert 0 <= settings.drain_seconds <= 3600
    assert settings.image == CONFIG.proxy.image or settings.image.startswith(CONFIG.proxy.allowed_image_prefixes)
    # Setting, value and what is allowed fit into one warning, but for the prefixes, which the chart may make long.
    for error in errors:
        assert error.setting.endswith("proxy-image") or len(f"autotls: {error.message}") <= MAX_WARNING_LENGTH
