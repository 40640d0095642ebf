"""Values and configuration: one set of defaults, and every bad value refused in words that name it."""

import json
from typing import Any

import msgspec
import pytest
import yaml

from mesh import names
from mesh.config import MeshConfig, parse_config
from tests.chart.chart import CHART, HelmError, Rendered, render, template

# Fields of the configuration that are no value of that name: the release's namespace, and `prometheus.url`.
_FROM_THE_RELEASE = {"controlPlaneNamespace"}
_RENAMED = {"prometheusUrl"}
_FROM_IMAGE = {"image", "imagePullPolicy"}


def config_text(rendered: Rendered) -> str:
    return rendered.get("ConfigMap", names.CONFIG_MAP)["data"][names.CONFIG_KEY]


def values() -> dict[str, Any]:
    return yaml.safe_load((CHART / "values.yaml").read_text())


def schema() -> dict[str, Any]:
    return json.loads((CHART / "values.schema.json").read_text())


def test_default_values_are_the_defaults_of_the_code() -> None:
    text = config_text(render())
    assert parse_config(text.encode()) == MeshConfig()
    # And every field is written out: what the file left to the code would drift unseen.
    assert yaml.safe_load(text) == json.loads(msgspec.json.encode(MeshConfig()))


def test_every_field_of_the_configuration_is_a_value_of_the_chart() -> None:
    fields, given = msgspec.to_builtins(MeshConfig()), values()
    assert fields.keys() - _FROM_THE_RELEASE - _RENAMED <= given.keys()
    assert fields["proxy"].keys() - _FROM_IMAGE == given["proxy"].keys()
    assert fields["proxy"]["resources"].keys() == given["proxy"]["resources"].keys()
    for section in ("identity", "lease"):
        assert fields[section].keys() == given[section].keys()


def test_changed_values_reach_the_configuration() -> None:
    changed = {
        "trustDomain": "prod.example.org",
        "mode": "strict",
        "podSecurityDefault": "baseline",
        "excludedNamespaces": ["monitoring"],
        "proxy": {"inbound": "observed", "resources": {"cpuLimit": "500m"}, "waitSeconds": 0},
        "identity": {"leafLifetime": "90s", "issuerLifetime": "10m", "rootLifetime": "1h30m", "externalIssuer": True},
        "image": {"proxy": {"repository": "registry.example/autotls/proxy", "tag": "v2"}, "pullPolicy": "Never"},
    }
    config = parse_config(config_text(render(*_set_json(changed), namespace="mesh")).encode())
    assert config.control_plane_namespace == "mesh"
    assert (config.trust_domain, config.mode, config.pod_security_default) == ("prod.example.org", "strict", "baseline")
    assert config.excluded_namespaces == ("monitoring",)
    assert (config.proxy.inbound, config.proxy.resources.cpu_limit, config.proxy.wait_seconds) == (
        "observed",
        "500m",
        0,
    )
    assert config.proxy.image == "registry.example/autotls/proxy:v2"
    assert config.proxy.image_pull_policy == "Never"
    assert config.identity.leaf_lifetime == "90s"
    assert config.identity.external_issuer


def test_ports_given_as_numbers_are_texts_in_the_configuration() -> None:
    rendered = render("--set=proxy.skipInboundPorts={80,8000-8100}")
    proxy = parse_config(config_text(rendered).encode()).proxy
    assert proxy.skip_inbound_ports == ("80", "8000-8100")


def test_schema_describes_every_value_and_closes_every_object() -> None:
    def check(part: dict[str, Any], value: object, path: str) -> None:
        part = schema()["$defs"][part["$ref"].rsplit("/", 1)[-1]] if "$ref" in part else part
        if part.get("type") != "object" or not isinstance(value, dict):
            return
        assert "additionalProperties" in part, path
        if "properties" in part:
            assert part["additionalProperties"] is False, path
            assert value.keys() <= part["properties"].keys(), path
            for key, inner in value.items():
                check(part["properties"][key], inner, f"{path}.{key}")

    root = schema()
    assert root["properties"].keys() - {"global"} == values().keys()
    check(root, values(), "values")


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        pytest.param("mode=permissive", r"mode.*must be one of.*optional", id="an unknown mode"),
        pytest.param(
            "trustDomain=Example.ORG", r"trustDomain.*does not match pattern", id="a trust domain in capitals"
        ),
        pytest.param("trustDomian=x", r"trustDomian", id="a misspelt value"),
        pytest.param("proxy.inbuond=direct", r"inbuond", id="a misspelt value of the proxy"),
        pytest.param("proxy.inbound=redirect", r"inbound.*must be one of", id="an unknown inbound"),
        pytest.param("proxy.waitSeconds=3", r"waitSeconds.*maximum", id="a wait above 2 s"),
        pytest.param("proxy.resources.cpuRequest=lots", r"cpuRequest.*pattern", id="a quantity that is none"),
        pytest.param("proxy.resources.memoryRequest=", r"memoryRequest.*pattern", id="an empty request"),
        pytest.param("proxy.opaquePorts={99999}", r"opaquePorts", id="a port above 65535"),
        pytest.param("identity.leafLifetime=1y", r"leafLifetime.*pattern", id="a duration with an unknown unit"),
        pytest.param("identity.renewAt=1.5", r"renewAt", id="renewal after the end"),
        pytest.param("webhook.timeoutSeconds=30", r"timeoutSeconds.*maximum", id="a timeout above the contract's 5 s"),
        pytest.param("webhook.replicas=0", r"replicas.*minimum", id="no replica"),
        pytest.param("image.proxy.digest=latest", r"digest.*pattern", id="a digest that is none"),
        pytest.param("image.pullPolicy=Sometimes", r"pullPolicy", id="an unknown pull policy"),
        pytest.param("excludedNamespaces={Kube_System}", r"excludedNamespaces", id="a namespace that cannot exist"),
        pytest.param(r"extraLabels.app\.kubernetes\.io/name=x", r"extraLabels", id="a label of the chart's own"),
        pytest.param("podDisruptionBudget.maxUnavailable=0", r"maxUnavailable", id="a budget that blocks every drain"),
        pytest.param("admissionPolicy.enabled=maybe", r"enabled.*boolean", id="a boolean that is none"),
        pytest.param(
            "identity.leafLifetime=400d",
            r"identity.leafLifetime \(400d\) must be shorter than identity.issuerLifetime \(365d\)",
            id="a leaf that outlives its issuer",
        ),
        pytest.param(
            "identity.issuerLifetime=3650d",
            r"identity.issuerLifetime \(3650d\) must be shorter than identity.rootLifetime \(3650d\)",
            id="an issuer as old as its root",
        ),
        pytest.param(
            "lease.renewDeadline=1m",
            r"lease.renewDeadline \(1m\) must be shorter than lease.duration \(15s\)",
            id="two leaders at once",
        ),
    ],
)
def test_bad_value_is_refused_by_name(value: str, complaint: str) -> None:
    with pytest.raises(HelmError, match=f"(?s){complaint}"):
        template(f"--set={value}")


def test_values_the_code_would_refuse_do_not_render() -> None:
    """Durations in mixed units are compared by length, not by text."""
    template("--set=identity.leafLifetime=1h30m,identity.issuerLifetime=91m")
    with pytest.raises(HelmError, match="must be shorter"):
        template("--set=identity.leafLifetime=1h30m,identity.issuerLifetime=90m")


def _set_json(tree: dict[str, Any]) -> list[str]:
    return [f"--set-json={key}={json.dumps(value)}" for key, value in tree.items()]
