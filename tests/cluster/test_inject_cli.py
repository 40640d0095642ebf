"""`autotls inject | kubectl apply` on a real cluster: the webhook leaves it alone, and it is what the webhook makes."""

import json

import pytest

from mesh import names
from tests.cluster.kubectl import (
    Object,
    Space,
    eventually,
    inject,
    is_injected,
    is_ready,
    manifest_text,
    run_autotls,
    statuses_of,
    tell,
)
from tests.fixtures_cluster import RunningCluster

pytestmark = pytest.mark.cluster


def wait_for(where: Space, selector: str) -> Object:
    """The Ready pod of that label, newest first while a rollout is under way."""

    def ready() -> Object | None:
        return next((pod for pod in where.pods(selector) if is_ready(pod)), None)

    pod = eventually(ready, lambda: f"{selector} Ready: {[tell(pod) for pod in where.pods(selector)]}")
    assert pod
    return pod


def comparable(pod: Object) -> str:
    """The spec, with the same name for what each pod has of its own."""
    spec = {key: value for key, value in pod["spec"].items() if key != "nodeName"}
    volumes: list[Object] = spec["volumes"]
    token = next(each["name"] for each in volumes if each["name"].startswith("kube-api-access-"))
    # The API server appends the token's volume to the pod as it was sent, so before or behind ours.
    spec["volumes"] = sorted(volumes, key=lambda each: each["name"].replace(token, "kube-api-access"))
    return json.dumps(spec, sort_keys=True).replace(token, "kube-api-access")


def test_injected_manifest_runs_and_equals_what_the_webhook_makes(cluster: RunningCluster, shop: Space) -> None:
    """In a namespace that opted in, so that the webhook has every reason to add its own."""
    text = manifest_text(cluster, "app")
    injected = inject(cluster, text, "--tls=optional", f"--namespace={shop.name}")
    assert injected != text
    shop.kubectl("apply", "--filename=-", stdin=injected)
    by_command = wait_for(shop, "app=shop")
    template = shop.get("deployment", "shop")["spec"]["template"]
    sidecars = [each["name"] for each in by_command["spec"]["initContainers"]]
    assert sidecars == [each["name"] for each in template["spec"]["initContainers"]]
    assert sidecars == [names.INIT_CONTAINER, names.PROXY_CONTAINER]
    assert by_command["metadata"]["labels"][names.MODE_LABEL] == "optional"
    assert by_command["metadata"]["labels"][names.MESH_LABEL] == names.DEFAULT_CONTROL_PLANE_NAMESPACE

    shop.kubectl("delete", "deployment", "shop", "--cascade=foreground")
    shop.kubectl("apply", "--filename=-", stdin=text)
    by_webhook = wait_for(shop, "app=shop")
    assert "initContainers" not in shop.get("deployment", "shop")["spec"]["template"]["spec"]
    assert is_injected(by_webhook)
    assert comparable(by_command) == comparable(by_webhook)
    for annotation in (names.IDENTITY_ANNOTATION, names.VERSION_ANNOTATION):
        assert by_command["metadata"]["annotations"][annotation] == by_webhook["metadata"]["annotations"][annotation]


def test_injected_manifest_joins_the_mesh_where_nobody_opted_in(cluster: RunningCluster, outside: Space) -> None:
    """The full injection needs neither label nor webhook; the CA sees the pod and makes the identity."""
    injected = inject(cluster, manifest_text(cluster, "app"), "--tls=optional", f"--namespace={outside.name}")
    outside.kubectl("apply", "--filename=-", stdin=injected)
    pod = wait_for(outside, "app=shop")
    assert statuses_of(pod)[names.PROXY_CONTAINER]["restartCount"] == 0
    eventually(lambda: outside.find("secret", names.identity_secret_name("shop")), "the identity of shop")
    outside.kubectl("create", "job", "report-now", "--from=cronjob/report")

    def complete() -> bool:
        return outside.get("job", "report-now").get("status", {}).get("succeeded") == 1

    eventually(complete, lambda: f"job report-now: {[tell(pod) for pod in outside.pods('app=report')]}")
    (report,) = outside.pods("app=report")
    assert is_injected(report)


# What people would write; the others forge labels of ours or are templates of tests.
@pytest.mark.parametrize("name", ["app", "holder", "limited", "mutual-tls", "restricted", "traffic", "workloads"])
def test_inject_then_uninject_gives_the_same_bytes(cluster: RunningCluster, name: str) -> None:
    text = manifest_text(cluster, name)
    injected = inject(cluster, text, "--tls=strict")
    done = run_autotls(cluster, "uninject", "-", stdin=injected)
    assert done.returncode == 0, done.stderr
    assert done.stdout == text
    if name != "holder":  # which opted out
        assert names.PROXY_CONTAINER in injected
        assert inject(cluster, injected, "--tls=strict") == injected


def test_not_kubernetes_is_refused_with_file_line_and_reason(cluster: RunningCluster) -> None:
    done = run_autotls(cluster, "inject", "-", stdin="apiVersion: v1\nkind: Pod\nmetadata: {name: [\n")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: <stdin>:4: not YAML: ")
