"""`autotls check` and `version` against a real installation: healthy, and with one thing wrong at a time."""

import json
from collections.abc import Callable
from typing import Any, Final
from xml.etree import ElementTree

import pytest

from mesh import names
from mesh.version import VERSION
from tests.cluster.kubectl import (
    Object,
    Space,
    a_pod,
    eventually,
    inject,
    is_injected,
    is_ready,
    manifest,
    manifest_text,
    run_autotls,
    space,
    tell,
)
from tests.cluster.plane import Plane
from tests.fixtures_cluster import RunningCluster
from webhook.decision import PSS_ENFORCE_LABEL

pytestmark = pytest.mark.cluster

Found = dict[str, Any]
SECTIONS: Final = ["control plane", "certificates", "coverage", "sidecars", "data plane", "conflicts"]


def check(cluster: RunningCluster, *options: str) -> tuple[int, dict[str, Found]]:
    """Exit code, and every check by its id."""
    done = run_autotls(cluster, "check", "--output=json", *options)
    assert done.stdout, done.stderr
    return done.returncode, {each["id"]: each for each in json.loads(done.stdout)["checks"]}


def checked(cluster: RunningCluster, option: str, wanted: Callable[[int, dict[str, Found]], bool]) -> dict[str, Found]:
    """What `check` finds once it is as wanted: a proxy may still be starting, or be too busy to answer in time."""
    last: list[object] = []

    def found() -> dict[str, Found] | None:
        code, all_found = check(cluster, option)
        last[:] = [code, all_found]
        return all_found if wanted(code, all_found) else None

    return eventually(found, lambda: f"check finds what it should: {last}")


def subjects(found: Found) -> set[str]:
    return {each["subject"] for each in found["findings"]}


def finding(found: Found, subject: str) -> Found:
    """The finding about `subject`; fails with all that were found when there is none."""
    assert subject in subjects(found), found
    return next(each for each in found["findings"] if each["subject"] == subject)


def a_service_account(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}


def test_healthy_installation_passes_every_check(cluster: RunningCluster, shop: Space) -> None:
    shop.apply(a_pod(cluster, "app"))
    shop.wait_ready("app")

    def healthy(code: int, found: dict[str, Found]) -> bool:
        return code == 0 and all(each["verdict"] == "ok" for each in found.values())

    # A Secret that came after the pod, or a replica that another test has just ended, is a warning that passes.
    found = checked(cluster, f"--namespace={shop.name}", healthy)
    assert list(dict.fromkeys(each["section"] for each in found.values())) == SECTIONS
    assert shop.name in found["webhook-called"]["message"]
    for certificate in ("root-certificate", "issuer-certificate", "webhook-certificate"):
        assert found[certificate]["message"].endswith("left")


def test_check_writes_nothing(cluster: RunningCluster, shop: Space) -> None:
    def names_in_use() -> set[str]:
        kinds = "pods,secrets,configmaps,serviceaccounts"
        return {f"{each['kind']}/{each['metadata']['name']}" for each in shop.get(kinds)["items"]}

    made = {
        "ConfigMap/kube-root-ca.crt",
        f"ConfigMap/{names.TRUST_BUNDLE_CONFIG_MAP}",
        f"Secret/{names.identity_secret_name('default')}",
    }
    eventually(lambda: made <= names_in_use(), lambda: f"{made} among {names_in_use()}")
    before = names_in_use()
    check(cluster, f"--namespace={shop.name}")
    check(cluster, "--pre")
    assert names_in_use() == before


def test_pods_from_before_the_opt_in_are_named_with_the_command_that_restarts_them(
    cluster: RunningCluster, outside: Space
) -> None:
    outside.kubectl("apply", "--filename=-", stdin=manifest_text(cluster, "app"))
    outside.kubectl("rollout", "status", "deployment/shop", "--timeout=540s")
    outside.kubectl("label", "namespace", outside.name, f"{names.INJECT_LABEL}={names.INJECT_ENABLED}")

    code, found = check(cluster, f"--namespace={outside.name}")
    assert code == 1
    missing = finding(found["pods-covered"], f"deployment {outside.name}/shop")
    assert missing["verdict"] == "fail"
    assert (
        missing["message"] == "1 pod(s) without sidecar: created before the opt-in, or while the webhook did not answer"
    )
    assert missing["hint"] == f"kubectl -n {outside.name} rollout restart deployment/shop"

    cluster.kubectl(*missing["hint"].split()[1:])
    outside.kubectl("rollout", "status", "deployment/shop", "--timeout=540s")
    eventually(lambda: [is_injected(pod) for pod in outside.pods("app=shop")] == [True], "one pod, with its sidecar")
    checked(cluster, f"--namespace={outside.name}", lambda _, found: found["pods-covered"]["verdict"] == "ok")


def test_proxy_image_that_cannot_be_pulled_is_found(cluster: RunningCluster, outside: Space) -> None:
    text = manifest_text(cluster, "app")
    injected = inject(cluster, text, f"--namespace={outside.name}")
    image = cluster.image("proxy")
    missing = f"{image.rpartition(':')[0]}:missing"
    outside.kubectl("apply", "--filename=-", stdin=injected.replace(image, missing))

    def waiting() -> bool:
        pods = outside.pods("app=shop")
        statuses = [each for pod in pods for each in pod["status"].get("initContainerStatuses") or ()]
        reasons = {each["state"].get("waiting", {}).get("reason") for each in statuses}
        return bool(reasons & {"ErrImagePull", "ImagePullBackOff"})

    eventually(waiting, lambda: f"a pull that fails: {[tell(pod) for pod in outside.pods('app=shop')]}")
    (pod,) = outside.pods("app=shop")
    code, found = check(cluster, f"--namespace={outside.name}")
    assert code == 1
    broken = finding(found["proxies-running"], f"pod {outside.name}/{pod['metadata']['name']}")
    assert broken["message"].startswith(f"image {missing} cannot be pulled (")
    assert broken["hint"]


def test_foreign_secret_is_left_untouched_and_named(cluster: RunningCluster, outside: Space) -> None:
    name = names.identity_secret_name("guest")
    outside.kubectl("create", "secret", "generic", name, "--from-literal=tls.crt=mine")
    before = outside.get("secret", name)
    outside.apply(a_service_account("guest"), a_service_account("other"))
    outside.kubectl("label", "namespace", outside.name, f"{names.INJECT_LABEL}={names.INJECT_ENABLED}")
    eventually(lambda: outside.find("secret", names.identity_secret_name("other")), "the identity beside it")
    outside.apply(a_pod(cluster, "visitor", spec={"serviceAccountName": "guest"}))

    def visitor() -> bool:
        pod = outside.get("pod", "visitor")
        return is_injected(pod) and is_ready(pod)

    eventually(visitor, "the pod runs, with its sidecar and without identity")
    pod = f"pod {outside.name}/visitor"
    found = checked(
        cluster,
        f"--namespace={outside.name}",
        lambda code, found: code == 1 and pod in subjects(found["identities-served"]),
    )
    foreign = finding(found["identities"], f"service account {outside.name}/guest")
    assert foreign["message"] == f"Secret {name} was not made by autotls: 1 pod(s) in plaintext"
    assert f"delete secret {name}" in foreign["hint"]
    unserved = finding(found["identities-served"], pod)
    assert unserved["message"] == "it has no certificate, and none was issued"
    assert outside.get("secret", name) == before


def test_limit_range_that_would_refuse_the_sidecar_is_found_before_it_does(
    cluster: RunningCluster, shop: Space
) -> None:
    limits = [{"type": "Container", "max": {"cpu": "500m"}}]
    metadata = {"name": "small"}
    shop.apply({"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata, "spec": {"limits": limits}})
    code, found = check(cluster, f"--namespace={shop.name}")
    assert code == 1
    refusal = finding(found["room-for-sidecars"], f"LimitRange {shop.name}/small")
    assert refusal["message"] == "at most 500m cpu for a container"
    # What the hint says is true: with the annotation on the namespace, the pod gets in.
    assert shop.run("create", "--filename=-", stdin=json.dumps(a_pod(cluster, "app"))).returncode != 0
    shop.kubectl("annotate", "namespace", shop.name, f"{names.SETTING_PREFIX}proxy-cpu-limit=500m")
    eventually(
        lambda: shop.run("create", "--filename=-", stdin=json.dumps(a_pod(cluster, "app"))).returncode == 0,
        "the pod gets in once the webhook has seen the annotation",
    )


def a_service(name: str, **spec: Any) -> Object:
    whole = {"selector": {"app": "app"}, "ports": [{"port": 80, "targetPort": 8080}]} | spec
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": whole}


def test_known_conflicts_are_named_with_what_to_do(cluster: RunningCluster, shop: Space) -> None:
    policy = {
        "podSelector": {"matchLabels": {"app": "app"}}, "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"port": 8080}]}],
    }  # fmt: skip
    observed = {f"{names.SETTING_PREFIX}inbound": "observed", f"{names.SETTING_PREFIX}drain-seconds": "soon"}
    clash = {"name": "app", "image": cluster.image("testbox"), "command": ["sleep", "infinity"]}
    shop.apply(
        a_pod(cluster, "app", annotations=observed),
        a_pod(cluster, "clash", spec={"containers": [clash | {"ports": [{"containerPort": names.STATUS_PORT}]}]}),
        a_service("sticky", sessionAffinity="ClientIP"),
        a_service("local", internalTrafficPolicy="Local"),
        a_service("near", trafficDistribution="PreferClose"),
        a_service("source", type="NodePort", externalTrafficPolicy="Local"),
        a_service("own", ports=[{"port": 80, "targetPort": names.INBOUND_TLS_PORT}]),
        {
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "narrow"}, "spec": policy,
        },
    )  # fmt: skip
    shop.wait_ready("app", "clash")
    wanted = {
        "network-policies": {f"networkpolicy {shop.name}/narrow"},
        "unsupported-services": {f"service {shop.name}/{name}" for name in ("sticky", "local", "near")},
        "source-addresses": {f"service {shop.name}/source"},
        "clashes": {f"pod {shop.name}/clash", f"service {shop.name}/own"},
        "settings": {f"pod {shop.name}/app"},
    }
    found = checked(
        cluster,
        f"--namespace={shop.name}",
        lambda code, found: code == 0 and {key: subjects(found[key]) for key in wanted} == wanted,
    )
    for key in wanted:
        assert found[key]["verdict"] == "warn"
        assert all(each["hint"] for each in found[key]["findings"])


def test_pods_without_redirect_are_listed(cluster: RunningCluster) -> None:
    labels = {names.INJECT_LABEL: names.INJECT_ENABLED, PSS_ENFORCE_LABEL: "restricted"}
    with space(cluster, "pss", labels=labels) as made:
        made.apply(*manifest(cluster, "restricted"))
        eventually(lambda: [is_ready(pod) for pod in made.pods("app=restricted")] == [True], "the pod runs")
        _, found = check(cluster, f"--namespace={made.name}")
        (pod,) = made.pods("app=restricted")
        assert finding(found["redirect"], f"pod {made.name}/{pod['metadata']['name']}")["message"].startswith(
            "no_redirect"
        )


def test_a_proxy_without_discovery_is_found_and_its_certificate_is_still_counted_on(
    cluster: RunningCluster, shop: Space
) -> None:
    shop.apply(a_pod(cluster, "app"))
    shop.wait_ready("app")
    option = f"--namespace={shop.name}"
    checked(cluster, option, lambda _, found: found["proxies-connected"]["verdict"] == "ok")
    with Plane(cluster).scaled_down(names.DISCOVERY):
        found = checked(
            cluster,
            option,
            lambda _, found: (
                found["proxies-connected"]["verdict"] != "ok" and found["proxies-answer"]["verdict"] == "ok"
            ),
        )
        message = finding(found["proxies-connected"], f"pod {shop.name}/app")["message"]
        assert message.startswith("it is not connected to discovery")
        assert f"until the certificate of pod {shop.name}/app ends" in found["outage-budget"]["message"]


def test_before_installing_says_that_it_is_installed(cluster: RunningCluster) -> None:
    code, found = check(cluster, "--pre")
    assert code == 0
    assert found["nothing-in-the-way"]["verdict"] == "warn"
    assert found["nothing-in-the-way"]["message"] == "autotls is installed in namespace autotls"
    others = {key: each["verdict"] for key, each in found.items() if key != "nothing-in-the-way"}
    assert set(others.values()) == {"ok"}, found


def test_junit_and_table_tell_the_same_as_json(cluster: RunningCluster, shop: Space) -> None:
    option = f"--namespace={shop.name}"
    _, found = check(cluster, option)
    junit = ElementTree.fromstring(run_autotls(cluster, "check", "--output=junit", option).stdout)
    assert {case.get("name") for case in junit.iter("testcase")} == set(found)
    table = run_autotls(cluster, "check", option)
    for each in found.values():
        assert each["description"] in table.stdout
    assert "\x1b" not in table.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("check", "--output=xml"), 2),
        (("check", "--wait=soon"), 2),
        (("check", "--context=nobody"), 1),
        (("check", "--namespace=nobody-made-this"), 0),
        (("version", "--client"), 0),
    ],
    ids=["unknown form", "no duration", "unknown context", "empty namespace", "no cluster asked"],
)
def test_exit_codes(cluster: RunningCluster, arguments: tuple[str, ...], code: int) -> None:
    done = run_autotls(cluster, *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_version_names_command_and_control_plane(cluster: RunningCluster) -> None:
    found = json.loads(run_autotls(cluster, "version", "--output=json").stdout)
    assert found == {"client": VERSION, "controlPlane": {"version": VERSION, "namespace": "autotls"}}
