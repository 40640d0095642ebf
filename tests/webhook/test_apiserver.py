"""A real API server calls the real process, and accepts what comes out."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from cluster import apiserver
from cluster.apiserver import ApiServer
from mesh import names
from tests.fixtures.admission.goldens import golden_path
from tests.fixtures.admission.record import prepare, registration
from tests.fixtures.admission.workloads import CASES
from tests.webhook.pods import pod_object
from tests.webhook.process import WebhookProcess, running_webhook, wait_until

pytestmark = pytest.mark.apiserver

# A CronJob would wait for the next full minute; its pods are those of `job`.
APPLIED = sorted(CASES.keys() - {"cronjob"})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with apiserver.start(tmp_path_factory.mktemp("apiserver"), controllers=True) as server:
        yield server


@pytest.fixture(scope="module")
def webhook(server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebhookProcess]:
    with running_webhook(tmp_path_factory.mktemp("webhook"), server.kubeconfig) as webhook:
        wait_until(lambda: webhook.health("/readyz")[0] == 200, "webhook ready")
        # `failurePolicy: Fail`, so that a call that goes wrong fails the test.
        prepare(server, f"{webhook.url}/mutate", webhook.bundle)
        yield webhook


@pytest.fixture(scope="module")
def pods(server: ApiServer, webhook: WebhookProcess) -> dict[str, dict[str, Any] | str]:
    """Case → its stored pod, or the words with which it was refused."""
    found: dict[str, dict[str, Any] | str] = {}
    for name in APPLIED:
        case = CASES[name]
        try:
            server.kubectl("create", "-f-", "-n", case.namespace, stdin=json.dumps(case.object))
        except subprocess.CalledProcessError as error:
            found[name] = error.stderr

    def all_there() -> bool:
        for pod in json.loads(server.kubectl("get", "pods", "-A", "-ojson"))["items"]:
            metadata = pod["metadata"]
            case = max((c for c in APPLIED if (metadata["name"] + "-").startswith(f"{c}-")), key=len, default=None)
            if case is not None and metadata["namespace"] == CASES[case].namespace:
                found.setdefault(case, pod)
        return len(found) == len(APPLIED)

    wait_until(all_there, "a pod of every case")
    return found


@pytest.mark.parametrize("case", APPLIED)
def test_api_server_stores_what_the_golden_says(case: str, pods: dict[str, dict[str, Any] | str]) -> None:
    golden = json.loads(golden_path(case).read_bytes())
    pod = pods[case]
    if not golden["allowed"]:
        assert isinstance(pod, str)
        assert golden["status"]["message"] in pod
        return
    assert not isinstance(pod, str), pod
    wanted = "patch" in golden
    inits = [container["name"] for container in pod["spec"].get("initContainers", ())]
    assert (names.PROXY_CONTAINER in inits) is wanted
    assert (names.INIT_CONTAINER in inits) is (wanted and golden["auditAnnotations"]["reason"] == "injected")
    assert (names.MESH_LABEL in pod["metadata"].get("labels", {})) is wanted
    if wanted:
        assert pod["metadata"]["annotations"][names.IDENTITY_ANNOTATION] == golden["auditAnnotations"]["identity"]
        proxy = next(c for c in pod["spec"]["initContainers"] if c["name"] == names.PROXY_CONTAINER)
        # A server that did not know native sidecars would have dropped it without a word.
        assert proxy["restartPolicy"] == "Always"


@pytest.mark.parametrize(("case", "qos"), [("guaranteed", "Guaranteed"), ("bare-pod", "Burstable")])
def test_guaranteed_pods_stay_guaranteed(case: str, qos: str, pods: dict[str, dict[str, Any] | str]) -> None:
    pod = pods[case]
    assert not isinstance(pod, str)
    assert pod["status"]["qosClass"] == qos


def test_stored_pod_applied_again_elsewhere_is_left_as_it_is(
    server: ApiServer, pods: dict[str, dict[str, Any] | str]
) -> None:
    pod = pods["bare-pod"]
    assert not isinstance(pod, str)
    metadata = {key: pod["metadata"][key] for key in ("labels", "annotations")} | {"name": "again"}
    copy = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod["spec"]}
    server.kubectl("create", "-f-", "-n", "shop", stdin=json.dumps(copy))
    again = json.loads(server.kubectl("get", "pod", "again", "-n", "shop", "-ojson"))
    assert again["spec"]["initContainers"] == pod["spec"]["initContainers"]
    assert again["spec"]["volumes"] == pod["spec"]["volumes"]


def test_dry_run_is_honest(server: ApiServer, webhook: WebhookProcess) -> None:
    pod = pod_object()
    pod["metadata"]["name"] = "dry"
    answer = server.kubectl("create", "-f-", "-n", "shop", "--dry-run=server", "-ojson", stdin=json.dumps(pod))
    assert json.loads(answer)["spec"]["initContainers"][0]["name"] == names.INIT_CONTAINER
    assert not server.kubectl("get", "pod", "dry", "-n", "shop", "--ignore-not-found")


def test_first_pod_of_a_new_namespace_sees_its_settings(server: ApiServer, webhook: WebhookProcess) -> None:
    """Namespace, ServiceAccount and pod in one go: the mirror cannot be relied upon to know the namespace."""
    space = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": "brand-new",
            "labels": {names.INJECT_LABEL: "enabled", "pod-security.kubernetes.io/enforce": "baseline"},
            "annotations": {"config.autotls.io/log-level": "info"},
        },
    }
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "new", "namespace": "brand-new"}}
    pod = pod_object(serviceAccountName="new")
    pod["metadata"]["namespace"] = "brand-new"
    objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": [space, account, pod]})
    server.kubectl("create", "-f-", stdin=objects)
    stored = json.loads(server.kubectl("get", "pod", "app", "-n", "brand-new", "-ojson"))
    (proxy,) = stored["spec"]["initContainers"]
    environment = {entry["name"]: entry.get("value") for entry in proxy["env"]}
    assert environment["AUTOTLS_REDIRECT"] == "off"
    assert environment["AUTOTLS_LOG_LEVEL"] == "info"


def test_bad_setting_reaches_the_user_as_a_warning(server: ApiServer, webhook: WebhookProcess) -> None:
    pod = pod_object(annotations={"config.autotls.io/log-level": "loud"})
    pod["metadata"]["name"] = "loud"
    argv = [str(server.programs.kubectl), f"--kubeconfig={server.kubeconfig}", "create", "-f-", "--dry-run=server"]
    done = subprocess.run(argv, input=json.dumps(pod), capture_output=True, text=True, check=True)
    assert 'Warning: autotls: config.autotls.io/log-level: "loud" is not one of' in done.stderr


def test_registration_for_strict_pods_may_use_the_strict_path(server: ApiServer, webhook: WebhookProcess) -> None:
    strict = registration(f"{webhook.url}/mutate/strict", webhook.bundle)
    strict["metadata"]["name"] = "strict"
    strict["webhooks"][0]["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": "only-strict"}}
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "only-strict"}}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "new", "namespace": "only-strict"}}
    server.kubectl(
        "create", "-f-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": [strict, space, account]})
    )
    pod = pod_object(serviceAccountName="new")
    pod["metadata"] = {"name": "app", "namespace": "only-strict", "labels": {names.MODE_LABEL: "strict"}}

    def injected() -> bool:
        # A new registration reaches the API server's admission through its own watch.
        made = json.loads(server.kubectl("create", "-f-", "--dry-run=server", "-ojson", stdin=json.dumps(pod)))
        inits = made["spec"].get("initContainers", [])
        return any({"name": "AUTOTLS_MODE", "value": "strict"} in container["env"] for container in inits)

    wait_until(injected, "strict registration in force")
