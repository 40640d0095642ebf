"""What the chart renders, whatever the values: reproducible, without secrets, in any namespace."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from discovery import __main__ as discovery_main
from mesh import names
from mesh.version import VERSION
from tests.chart.chart import CHART, NAMESPACE, HelmError, render, run_helm, template
from webhook import __main__ as webhook_main

ALL_VALUES_CHANGED = (
    "--set=mode=strict,excludedNamespaces={monitoring,istio-system},image.controlPlane.digest=sha256:" + "a" * 64,
    "--set=imagePullSecrets[0].name=registry,priorityClassName=system-cluster-critical,extraLabels.team=net",
    "--set=tolerations[0].operator=Exists,podAnnotations.note=yes,prometheus.scrapeAnnotations=false",
)


def test_lint_finds_nothing() -> None:
    assert "0 chart(s) failed" in run_helm("lint", "--strict", str(CHART), "--kube-version", "1.37.2")


@pytest.mark.parametrize("values", [(), ALL_VALUES_CHANGED], ids=["defaults", "all values changed"])
def test_rendering_twice_gives_identical_bytes(values: tuple[str, ...]) -> None:
    assert template(*values).encode() == template(*values).encode()


def test_rendering_holds_no_key_and_no_certificate() -> None:
    rendered = render()
    text = template()
    assert "PRIVATE KEY" not in text
    assert "CERTIFICATE" not in text
    assert "caBundle" not in yaml.safe_dump(rendered.objects)  # comments may name it
    # A DER certificate or a key in base64 starts with MII or LS0t ("-----BEGIN").
    assert not re.search(r"\b(MII|LS0t)[A-Za-z0-9+/=]{16,}", text)
    assert not list(rendered.of("Secret"))


def test_chart_renders_no_namespace_and_no_hook() -> None:
    rendered = render()
    assert not list(rendered.of("Namespace"))
    assert all("helm.sh/hook" not in (item["metadata"].get("annotations") or {}) for item in rendered.objects)


def test_object_names_are_the_ones_the_code_knows() -> None:
    rendered = render(release="another-name")
    found = {f"{item['kind']}/{item['metadata']['name']}" for item in rendered.objects}
    assert found >= {
        f"Deployment/{names.WEBHOOK}",
        f"Deployment/{names.DISCOVERY}",
        f"Deployment/{names.DASHBOARD}",
        f"Deployment/{names.CA}",
        f"Service/{names.WEBHOOK}",
        f"Service/{names.DISCOVERY}",
        f"ServiceAccount/{names.WEBHOOK}",
        f"ServiceAccount/{names.DISCOVERY}",
        f"ServiceAccount/{names.DASHBOARD}",
        f"ServiceAccount/{names.CA}",
        f"PodDisruptionBudget/{names.WEBHOOK}",
        f"PodDisruptionBudget/{names.DISCOVERY}",
        f"PodDisruptionBudget/{names.CA}",
        f"ConfigMap/{names.CONFIG_MAP}",
        f"ConfigMap/{names.STRICT_REGISTRATION_TEMPLATE}",
        f"MutatingWebhookConfiguration/{names.REGISTRATION}",
    }
    assert f"MutatingWebhookConfiguration/{names.STRICT_REGISTRATION}" not in found


def test_dashboard_can_be_left_out_whole() -> None:
    rendered = render("--set=dashboard.enabled=false")
    assert not [item["kind"] for item in rendered.objects if item["metadata"]["name"] == names.DASHBOARD]


def test_nothing_in_the_cluster_leads_to_the_pages_but_a_port_forward() -> None:
    ports = render().get("Deployment", names.DASHBOARD)["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert [port["containerPort"] for port in ports] == [names.HEALTH_PORT]
    assert names.DASHBOARD not in {item["metadata"]["name"] for item in render().of("Service")}


def test_no_object_appears_twice() -> None:
    identity = Counter(
        (item["apiVersion"], item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"])
        for item in render().objects
    )
    assert [key for key, count in identity.items() if count > 1] == []


@pytest.mark.parametrize("namespace", ["autotls", "mesh-system", "default"])
def test_every_reference_follows_the_namespace(namespace: str) -> None:
    text = template(namespace=namespace)
    rendered = render(namespace=namespace)
    cluster_scoped = ("ClusterRole", "ClusterRoleBinding", "MutatingWebhookConfiguration")
    for item in rendered.objects:
        scoped = not item["kind"].startswith(("ValidatingAdmissionPolicy", *cluster_scoped))
        assert item["metadata"].get("namespace") == (namespace if scoped else None), item["metadata"]["name"]
    for binding in (*rendered.of("ClusterRoleBinding"), *rendered.of("RoleBinding")):
        assert [subject["namespace"] for subject in binding["subjects"]] == [namespace]
    if namespace != NAMESPACE:
        assert not re.search(r"namespace: \"?autotls\b|serviceaccount:autotls:", text)


def test_labels_of_the_user_reach_every_object_and_pod() -> None:
    rendered = render("--set=extraLabels.team=net")
    assert all(item["metadata"]["labels"]["team"] == "net" for item in rendered.objects)
    assert all(item["spec"]["template"]["metadata"]["labels"]["team"] == "net" for item in rendered.of("Deployment"))


def test_deployment_selectors_match_their_pods_and_no_other() -> None:
    deployments = list(render("--set=extraLabels.team=net").of("Deployment"))
    for one in deployments:
        matching = [
            other["metadata"]["name"]
            for other in deployments
            if one["spec"]["selector"]["matchLabels"].items() <= other["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert matching == [one["metadata"]["name"]]


def test_selectors_do_not_depend_on_the_release() -> None:
    """`autotls install | kubectl apply` and helm under another name must be able to update each other's Deployments."""

    def selectors(release: str) -> list[Any]:
        return [item["spec"]["selector"] for item in render(release=release).of("Deployment")]

    assert selectors("autotls") == selectors("another")


@pytest.mark.parametrize(
    ("name", "port", "target"),
    [(names.WEBHOOK, 443, names.WEBHOOK_PORT), (names.DISCOVERY, names.XDS_PORT, names.XDS_PORT)],
)
def test_service_reaches_the_port(name: str, port: int, target: int) -> None:
    rendered = render()
    service = rendered.get("Service", name)["spec"]
    pod = rendered.get("Deployment", name)["spec"]["template"]
    assert service["selector"].items() <= pod["metadata"]["labels"].items()
    ports = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
    assert [(entry["port"], ports[entry["targetPort"]]) for entry in service["ports"]] == [(port, target)]


@pytest.mark.parametrize("name", [names.WEBHOOK, names.CA, names.DISCOVERY, names.DASHBOARD])
def test_probes_ask_the_health_port(name: str) -> None:
    [container] = render().get("Deployment", name)["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    probed = {
        probe: (container[probe]["httpGet"]["path"], ports[container[probe]["httpGet"]["port"]])
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert probed == {
        "startupProbe": ("/healthz", names.HEALTH_PORT),
        "livenessProbe": ("/healthz", names.HEALTH_PORT),
        "readinessProbe": ("/readyz", names.HEALTH_PORT),
    }


@pytest.mark.parametrize(
    ("name", "secret", "folder"),
    [
        (names.WEBHOOK, names.WEBHOOK_TLS_SECRET, Path(webhook_main.CERTIFICATE_DIRECTORY)),
        (names.DISCOVERY, names.DISCOVERY_TLS_SECRET, discovery_main.CERTIFICATE_FOLDER),
    ],
)
def test_server_cannot_start_without_its_certificate(name: str, secret: str, folder: Path) -> None:
    pod = render().get("Deployment", name)["spec"]["template"]["spec"]
    [volume] = [volume for volume in pod["volumes"] if "secret" in volume]
    assert volume["secret"]["secretName"] == secret
    assert not volume["secret"].get("optional", False)
    assert {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]} >= {
        str(folder),
        "/etc/autotls",
    }


def test_ca_mounts_no_key() -> None:
    pod = render().get("Deployment", names.CA)["spec"]["template"]["spec"]
    assert all("secret" not in volume for volume in pod["volumes"])


@pytest.mark.parametrize("change", ["proxy.logLevel=debug", "identity.leafLifetime=12h", "mode=strict"])
def test_pods_roll_when_the_configuration_changes(change: str) -> None:
    before, after = render(), render(f"--set={change}")
    for name in (names.WEBHOOK, names.CA):
        annotations = [
            r.get("Deployment", name)["spec"]["template"]["metadata"]["annotations"] for r in (before, after)
        ]
        assert annotations[0]["checksum/config"] != annotations[1]["checksum/config"]


def test_ca_rolls_when_only_the_strict_registration_changes() -> None:
    before, after = (
        render(*values).get("Deployment", names.CA)["spec"]["template"]["metadata"]["annotations"]
        for values in ((), ("--set=webhook.timeoutSeconds=3",))
    )
    assert before["checksum/config"] == after["checksum/config"]
    assert before["checksum/registration"] != after["checksum/registration"]


def test_image_is_the_version_of_the_code_unless_said_otherwise() -> None:
    def images(*values: str) -> set[str]:
        rendered = render(*values)
        pods = [item["spec"]["template"]["spec"] for item in rendered.of("Deployment")]
        return {container["image"] for pod in pods for container in pod["containers"]}

    digest = "sha256:" + "0" * 64
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == VERSION
    assert images() == {f"autotls/control-plane:{VERSION}"}
    assert images("--set=image.controlPlane.tag=dev") == {"autotls/control-plane:dev"}
    assert images(f"--set=image.controlPlane.tag=dev,image.controlPlane.digest={digest}") == {
        f"autotls/control-plane@{digest}"
    }


def test_placement_values_reach_both_deployments() -> None:
    rendered = render(*ALL_VALUES_CHANGED)
    for item in rendered.of("Deployment"):
        pod = item["spec"]["template"]["spec"]
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
        assert pod["priorityClassName"] == "system-cluster-critical"
        assert pod["tolerations"] == [{"operator": "Exists"}]
        assert "podAntiAffinity" in pod["affinity"]
        annotations = item["spec"]["template"]["metadata"]["annotations"]
        assert annotations["note"] == "yes"
        assert not any(key.startswith("prometheus.io/") for key in annotations)


def test_own_affinity_replaces_the_default() -> None:
    value = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    rendered = render(f"--set-json=affinity={json.dumps(value)}")
    assert all(item["spec"]["template"]["spec"]["affinity"] == value for item in rendered.of("Deployment"))


def test_kubernetes_without_native_sidecars_is_refused() -> None:
    with pytest.raises(HelmError, match=r"requires kubeVersion: >=1\.29"):
        render(kubernetes="1.28.9")


@pytest.mark.parametrize(("kubernetes", "policies"), [("1.29.3", 0), ("1.30.0", 3), ("1.31.2-gke.100", 3)])
def test_admission_policies_are_rendered_where_the_api_server_knows_them(kubernetes: str, policies: int) -> None:
    rendered = render(kubernetes=kubernetes)
    assert len(list(rendered.of("ValidatingAdmissionPolicy"))) == policies
    assert len(list(rendered.of("ValidatingAdmissionPolicyBinding"))) == policies


def test_every_policy_is_bound_and_denies() -> None:
    rendered = render()
    bound = {item["spec"]["policyName"]: item["spec"]["validationActions"] for item in
             rendered.of("ValidatingAdmissionPolicyBinding")}  # fmt: skip
    policies = list(rendered.of("ValidatingAdmissionPolicy"))
    assert bound.keys() == {policy["metadata"]["name"] for policy in policies}
    assert all("Deny" in actions for actions in bound.values())
    assert all(policy["spec"]["failurePolicy"] == "Fail" for policy in policies)
    # Fail must never refuse somebody else's write: each policy is for one ServiceAccount.
    for policy in policies:
        [condition] = policy["spec"]["matchConditions"]
        assert condition["expression"] == "request.userInfo.username == 'system:serviceaccount:autotls:autotls-ca'"


def test_external_root_and_issuer_are_not_among_what_the_ca_may_write() -> None:
    def own(*values: str) -> str:
        policy = render(*values).get("ValidatingAdmissionPolicy", "autotls-ca-secrets")
        return next(item["expression"] for item in policy["spec"]["variables"] if item["name"] == "isControlPlane")

    assert f"'{names.ROOT_SECRET}', '{names.ISSUER_SECRET}'" in own()
    external = own("--set=identity.externalIssuer=true")
    assert names.ROOT_SECRET not in external
    assert names.ISSUER_SECRET not in external
    assert f"'{names.WEBHOOK_TLS_SECRET}'" in external
