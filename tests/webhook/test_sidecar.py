"""Our containers: safe wherever the pod is, complete for the proxy image."""

from typing import Any

import pytest

from mesh import names
from mesh.config import MeshConfig
from mesh.settings import default_settings
from tests.webhook.pods import CONFIG, inject_for
from webhook.sidecar import init_container, proxy_container
from webhook.volumes import identity_volume, proxy_mounts, run_volume

# docs/architecture.md, "What a pod gets": the environment of both containers.
VARIABLES = {
    "AUTOTLS_POD_NAME": "metadata.name",
    "AUTOTLS_POD_NAMESPACE": "metadata.namespace",
    "AUTOTLS_SERVICE_ACCOUNT": "spec.serviceAccountName",
    "AUTOTLS_NODE_NAME": "spec.nodeName",
    "AUTOTLS_TRUST_DOMAIN": "cluster.local",
    "AUTOTLS_CONTROL_PLANE_NAMESPACE": "autotls",
    "AUTOTLS_DISCOVERY_ADDRESS": "autotls-discovery.autotls.svc.cluster.local:15110",
    "AUTOTLS_PORTS": "metadata.annotations['autotls.io/ports']",
    "AUTOTLS_MODE": "optional",
    "AUTOTLS_INBOUND": "direct",
    "AUTOTLS_LOG_LEVEL": "warning",
    "AUTOTLS_WAIT_SECONDS": "2",
    "AUTOTLS_DRAIN_SECONDS": "5",
    "AUTOTLS_SKIP_INBOUND_PORTS": "",
    "AUTOTLS_SKIP_OUTBOUND_PORTS": "",
    "AUTOTLS_REDIRECT": "on",
}


def both(config: MeshConfig = CONFIG, **options: Any) -> list[dict[str, Any]]:
    settings = default_settings(config, config.mode)
    return [build(settings, config, guaranteed=False, **options) for build in (init_container, proxy_container)]


@pytest.mark.parametrize("index", [0, 1], ids=["init", "proxy"])
def test_environment_is_what_the_proxy_image_reads(index: int) -> None:
    found = {
        entry["name"]: entry["value"] if "value" in entry else entry["valueFrom"]["fieldRef"]["fieldPath"]
        for entry in both()[index]["env"]
    }
    assert found == VARIABLES


def test_without_redirect_the_proxy_is_told() -> None:
    settings = default_settings(CONFIG, "optional")
    proxy = proxy_container(settings, CONFIG, guaranteed=False, redirect=False)
    assert {"name": "AUTOTLS_REDIRECT", "value": "off"} in proxy["env"]


def test_strict_application_waits_for_its_proxy_longer_than_an_optional_one_may_be_held() -> None:
    for build in (init_container, proxy_container):
        container = build(default_settings(CONFIG, "strict"), CONFIG, guaranteed=False)
        assert {"name": "AUTOTLS_WAIT_SECONDS", "value": "60"} in container["env"]


def test_proxy_satisfies_pod_security_restricted_by_itself() -> None:
    """Every field that `restricted` asks for, so that nothing depends on the pod's own security context."""
    context = both()[1]["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == names.PROXY_UID != 0
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert context["readOnlyRootFilesystem"] is True
    assert not context["privileged"]


def test_redirect_container_is_root_with_two_capabilities_and_no_more() -> None:
    context = both()[0]["securityContext"]
    # A pod-level `runAsNonRoot: true` would otherwise keep the pod from starting.
    assert (context["runAsUser"], context["runAsNonRoot"]) == (0, False)
    assert context["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True


def test_nothing_of_the_proxy_can_hold_the_pod() -> None:
    proxy = both()[1]
    assert proxy["restartPolicy"] == "Always"
    assert not {"startupProbe", "readinessProbe", "livenessProbe"} & proxy.keys()
    assert proxy["lifecycle"] == {"postStart": {"exec": {"command": ["autotls-wait"]}}}


def test_redirect_container_ends_by_itself() -> None:
    assert "restartPolicy" not in both()[0]


def test_requests_and_limits_are_always_set() -> None:
    for container in both():
        for part in ("requests", "limits"):
            assert container["resources"][part].keys() == {"cpu", "memory"}


def test_chosen_image_and_levels_reach_both_containers() -> None:
    settings = inject_for(
        config=MeshConfig(),
        annotations={"config.autotls.io/log-level": "debug", "config.autotls.io/inbound": "observed"},
    ).settings
    for build in (init_container, proxy_container):
        environment = build(settings, CONFIG, guaranteed=False)["env"]
        assert {"name": "AUTOTLS_LOG_LEVEL", "value": "debug"} in environment
        assert {"name": "AUTOTLS_INBOUND", "value": "observed"} in environment


def test_identity_is_one_optional_projected_secret() -> None:
    volume = identity_volume("cart")
    (source,) = volume["projected"]["sources"]
    assert source == {"secret": {"name": "autotls-identity-cart", "optional": True}}
    assert volume["projected"]["defaultMode"] == 0o444


def test_every_mount_has_its_volume() -> None:
    volumes = {identity_volume("x")["name"], run_volume()["name"]}
    assert {mount["name"] for mount in proxy_mounts()} == volumes
    assert {
        "name": names.IDENTITY_VOLUME,
        "mountPath": "/var/run/secrets/autotls.io",
        "readOnly": True,
    } in proxy_mounts()
