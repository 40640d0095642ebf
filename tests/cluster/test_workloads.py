"""Every shape of workload comes out of admission on a real cluster and runs, its own containers untouched.

Everything is created at once and waited for afterwards, so the waits overlap.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import pytest
from cryptography import x509

from mesh import names
from tests.cluster.kubectl import (
    OPTED_IN,
    Object,
    Space,
    a_pod,
    as_list,
    containers_of,
    eventually,
    is_injected,
    is_ready,
    manifest,
    space,
    statuses_of,
    tell,
)
from tests.fixtures_cluster import RunningCluster

pytestmark = pytest.mark.cluster

PSS_RESTRICTED: Final = {"pod-security.kubernetes.io/enforce": "restricted"}
OURS: Final = frozenset({names.INIT_CONTAINER, names.PROXY_CONTAINER, names.IDENTITY_VOLUME, names.RUN_VOLUME})
# Set by the scheduler, and by controllers for the pods they make.
NOT_COMPARED: Final = ("nodeName", "hostname", "subdomain", "affinity", "tolerations")
# A CronJob's first pod comes at the next full minute.
RUNNING: Final = (
    "deployment", "statefulset", "daemonset", "bare-pod", "generate-name", "init-containers", "native-sidecar",
    "non-root", "no-token", "guaranteed", "huge", "restricted", "limited", "strict",
)  # fmt: skip
FINISHED: Final = ("job", "restart-never", "cronjob")


@dataclass(frozen=True, slots=True)
class Workloads:
    """The namespaces, and which cases live elsewhere than in `shop`."""

    shop: Space
    restricted: Space
    limited: Space
    strict: Space

    def space_of(self, case: str) -> Space:
        return getattr(self, case) if case in ("restricted", "limited", "strict") else self.shop

    def pod(self, case: str) -> Object | None:
        """The newest pod of the case."""
        found: list[Object] = self.space_of(case).get("pods", f"--selector=app={case}")["items"]
        return max(found, key=lambda pod: pod["metadata"]["creationTimestamp"], default=None)

    def wait_running(self, case: str) -> Object:
        """The case's pod, Ready."""

        def ready() -> Object | None:
            pod = self.pod(case)
            return pod if pod and is_ready(pod) else None

        found = eventually(ready, lambda: f"{case} Ready: {tell(self.pod(case) or {'metadata': {'name': 'no pod'}})}")
        assert found
        return found

    def wait_finished(self, case: str) -> Object:
        """A pod of the case that succeeded; none may have failed."""

        def succeeded() -> Object | None:
            found: list[Object] = self.shop.get("pods", f"--selector=app={case}")["items"]
            assert not [tell(pod) for pod in found if pod["status"]["phase"] == "Failed"]
            return next((pod for pod in found if pod["status"]["phase"] == "Succeeded"), None)

        found = eventually(succeeded, f"a pod of {case} succeeded")
        assert found
        return found


@pytest.fixture(scope="module")
def workloads(cluster: RunningCluster) -> Iterator[Workloads]:
    with ExitStack() as stack:
        labels = {
            "shop": {},
            "restricted": PSS_RESTRICTED,
            "limited": {},
            "strict": {names.MODE_LABEL: "strict"},
        }
        spaces = {
            name: stack.enter_context(space(cluster, name, labels=OPTED_IN | extra)) for name, extra in labels.items()
        }
        made = Workloads(**spaces)
        made.limited.apply(*manifest(cluster, "limited"))
        made.restricted.apply(*manifest(cluster, "restricted"))
        made.strict.apply(a_pod(cluster, "strict"))
        made.shop.kubectl("create", "--filename=-", stdin=json.dumps(generated(cluster)))
        made.shop.apply(*manifest(cluster, "workloads"))
        made.shop.apply(huge(cluster))
        yield made


def generated(cluster: RunningCluster) -> Object:
    pod = a_pod(cluster, "generate-name")
    pod["metadata"] |= {"generateName": "generate-name-"}
    del pod["metadata"]["name"]
    return pod


def huge(cluster: RunningCluster) -> Object:
    """30 containers, about 150 KB as the API server sends it."""
    pod = a_pod(cluster, "huge")
    (app,) = pod["spec"]["containers"]
    pod["spec"]["containers"] = [
        {
            **app,
            "name": f"c{number}",
            "env": [{"name": f"SETTING_{entry}", "value": f"{number}-{entry}-" + "x" * 120} for entry in range(30)],
        }
        for number in range(30)
    ]
    return pod


@pytest.mark.parametrize("case", RUNNING)
def test_pod_is_ready_with_a_running_sidecar_that_answers(workloads: Workloads, case: str) -> None:
    pod = workloads.wait_running(case)
    sidecar = statuses_of(pod)[names.PROXY_CONTAINER]
    assert sidecar["ready"]
    assert sidecar["started"]
    assert sidecar["restartCount"] == 0
    assert pod["metadata"]["labels"][names.MESH_LABEL] == names.DEFAULT_CONTROL_PLANE_NAMESPACE
    where = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
    ready = ("get", f"--raw={where}:{names.STATUS_PORT}/proxy/ready")
    # In optional mode a pod may be Ready before its proxy is.
    eventually(lambda: workloads.shop.run(*ready).stdout.strip() == "LIVE", lambda: f"{workloads.shop.run(*ready)}")


@pytest.mark.parametrize("case", RUNNING)
def test_sidecar_holds_the_identity_of_its_service_account(workloads: Workloads, case: str) -> None:
    pod = workloads.wait_running(case)
    name, where = pod["metadata"]["name"], workloads.space_of(case)
    mount = names.IDENTITY_MOUNT

    def files() -> str:
        return where.run("exec", name, f"--container={names.PROXY_CONTAINER}", "--", "ls", mount).stdout

    expected = {"tls.crt", "tls.key", "ca.crt"}
    eventually(lambda: set(files().split()) == expected, lambda: f"identity: {files()}")
    pem = where.exec(name, "cat", f"{mount}/tls.crt", container=names.PROXY_CONTAINER)
    leaf = x509.load_pem_x509_certificates(pem.encode())[0]
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert found.get_values_for_type(x509.UniformResourceIdentifier) == [
        f"spiffe://cluster.local/ns/{where.name}/sa/default"
    ]
    assert (
        pod["metadata"]["annotations"][names.IDENTITY_ANNOTATION]
        == f"spiffe://cluster.local/ns/{where.name}/sa/default"
    )


@pytest.mark.parametrize("case", FINISHED)
def test_pod_with_an_end_completes_and_its_sidecar_with_it(workloads: Workloads, case: str) -> None:
    pod = workloads.wait_finished(case)
    assert is_injected(pod)
    statuses = statuses_of(pod)
    assert statuses["app"]["state"]["terminated"]["exitCode"] == 0
    assert statuses[names.PROXY_CONTAINER]["state"]["terminated"]["exitCode"] == 0


@pytest.mark.parametrize(("kind", "name"), [("job", "job"), ("cronjob", "cronjob")])
def test_job_is_complete(workloads: Workloads, kind: str, name: str) -> None:
    def complete() -> bool:
        jobs: list[Object] = workloads.shop.get("jobs")["items"]
        mine = [job for job in jobs if owner(job) == (kind, name) or (kind, name) == ("job", job["metadata"]["name"])]
        return any(job.get("status", {}).get("succeeded") == 1 for job in mine)

    eventually(complete, f"{kind} {name} complete")


def owner(item: Object) -> tuple[str, str] | None:
    references = item["metadata"].get("ownerReferences") or ()
    return next(((each["kind"].lower(), each["name"]) for each in references), None)


@pytest.mark.parametrize("case", [*RUNNING, *FINISHED])
def test_nothing_of_the_user_is_changed(workloads: Workloads, case: str) -> None:
    """Without our additions the live pod is what the API server makes of the same spec when we are not asked."""
    pod = workloads.wait_finished(case) if case in FINISHED else workloads.wait_running(case)
    where = workloads.space_of(case)
    metadata = {"name": "twin", "labels": {names.INJECT_LABEL: names.INJECT_DISABLED}}
    twin = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": written_spec(where, pod)}
    untouched = json.loads(
        where.kubectl("create", "--dry-run=server", "--output=json", "--filename=-", stdin=json.dumps(twin))
    )
    assert not is_injected(untouched)
    assert comparable(pod) == comparable(untouched)
    added = set(containers_of(pod)) - set(containers_of(untouched))
    assert added == ({names.PROXY_CONTAINER} if case == "restricted" else {names.INIT_CONTAINER, names.PROXY_CONTAINER})
    # Ours come first, and in this order.
    first = [each["name"] for each in pod["spec"]["initContainers"]][: len(added)]
    assert first == [name for name in (names.INIT_CONTAINER, names.PROXY_CONTAINER) if name in added]


def written_spec(where: Space, pod: Object) -> Object:
    """What somebody wrote: the template of the pod's owner, or the pod itself as it was applied."""
    controller = owner(pod)
    if controller is None:
        applied = pod["metadata"].get("annotations", {}).get("kubectl.kubernetes.io/last-applied-configuration")
        return json.loads(applied)["spec"] if applied else generated(where.cluster)["spec"]
    made_by = where.get(*controller)
    return made_by["spec"]["template"]["spec"]


def comparable(pod: Object) -> Object:
    """The spec without what is ours, and with one name for the token's volume, which the API server draws by lot."""
    spec = json.loads(json.dumps(pod["spec"]))
    for field in NOT_COMPARED:
        spec.pop(field, None)
    for field in ("initContainers", "volumes"):
        kept = [each for each in spec.pop(field, None) or () if each["name"] not in OURS]
        if kept:
            spec[field] = kept
    token = next((each["name"] for each in spec.get("volumes", ()) if each["name"].startswith("kube-api-access-")), "")
    text = json.dumps(spec)
    return json.loads(text.replace(token, "kube-api-access") if token else text)


def test_labels_and_annotations_of_the_user_are_kept(workloads: Workloads) -> None:
    pod = workloads.wait_running("bare-pod")
    assert pod["metadata"]["annotations"]["example.com/kept"] == "yes"
    assert set(pod["metadata"]["labels"]) == {"app", names.MESH_LABEL}


def test_guaranteed_pod_stays_guaranteed(workloads: Workloads) -> None:
    assert workloads.wait_running("guaranteed")["status"]["qosClass"] == "Guaranteed"
    assert workloads.wait_running("bare-pod")["status"]["qosClass"] == "Burstable"


def test_fs_group_reaches_the_users_volume_and_the_sidecar_still_reads_its_key(workloads: Workloads) -> None:
    pod = workloads.wait_running("non-root")
    name = pod["metadata"]["name"]
    assert workloads.shop.exec(name, "stat", "--format=%g", "/data/mine", container="app").strip() == "2000"
    key = f"{names.IDENTITY_MOUNT}/tls.key"
    workloads.shop.exec(name, "test", "-r", key, container=names.PROXY_CONTAINER)


def test_pod_without_token_gets_none_by_us(workloads: Workloads) -> None:
    pod = workloads.wait_running("no-token")
    assert [each["name"] for each in pod["spec"]["volumes"]] == [names.IDENTITY_VOLUME, names.RUN_VOLUME]


def test_huge_pod_is_as_big_as_it_says(workloads: Workloads) -> None:
    pod = workloads.wait_running("huge")
    assert len(pod["spec"]["containers"]) == 30
    assert len(json.dumps(pod["spec"])) > 140_000


def test_enforcing_namespace_gets_the_sidecar_without_redirect(workloads: Workloads) -> None:
    pod = workloads.wait_running("restricted")
    sidecar = containers_of(pod)[names.PROXY_CONTAINER]
    assert {"name": "AUTOTLS_REDIRECT", "value": "off"} in sidecar["env"]
    lax = containers_of(workloads.wait_running("non-root"))[names.PROXY_CONTAINER]
    assert {"name": "AUTOTLS_REDIRECT", "value": "on"} in lax["env"]


def test_redirect_is_written_where_it_is_allowed(workloads: Workloads) -> None:
    state = statuses_of(workloads.wait_running("non-root"))[names.INIT_CONTAINER]["state"]["terminated"]
    assert state["exitCode"] == 0
    assert state["message"].startswith("redirect_written")


def test_pod_on_the_hosts_network_is_left_alone_and_told(workloads: Workloads) -> None:
    pod = workloads.wait_running("host-network")
    assert not is_injected(pod)
    assert names.MESH_LABEL not in pod["metadata"]["labels"]

    def reasons() -> list[str]:
        found = workloads.shop.get("events", "--field-selector=involvedObject.name=host-network")
        return [each["message"] for each in found["items"] if each["reason"] == "Skipped"]

    message = eventually(reasons, "an Event that says why")[0]
    assert "host_network" in message


def test_pod_that_opted_out_is_left_alone(workloads: Workloads) -> None:
    pod = workloads.wait_running("opted-out")
    assert not is_injected(pod)
    assert set(pod["metadata"]["labels"]) == {"app", names.INJECT_LABEL}


def test_invalid_annotation_in_optional_mode_is_told_and_the_default_used(workloads: Workloads) -> None:
    pod = a_pod(workloads.shop.cluster, "loud", annotations={"config.autotls.io/log-level": "loud"})
    done = workloads.shop.run("create", "--dry-run=server", "--output=json", "--filename=-", stdin=json.dumps(pod))
    assert done.returncode == 0, done.stderr
    assert 'Warning: autotls: config.autotls.io/log-level: "loud" is not ' in done.stderr
    sidecar = containers_of(json.loads(done.stdout))[names.PROXY_CONTAINER]
    assert {"name": "AUTOTLS_LOG_LEVEL", "value": "warning"} in sidecar["env"]


def test_invalid_annotation_in_strict_mode_is_refused_with_the_same_words(workloads: Workloads) -> None:
    pod = a_pod(workloads.strict.cluster, "soon", annotations={"config.autotls.io/wait-seconds": "soon"})
    done = workloads.strict.run("create", "--filename=-", stdin=json.dumps(pod))
    assert done.returncode != 0
    assert 'config.autotls.io/wait-seconds: "soon" is not ' in done.stderr
    assert "strict.autotls.io" in done.stderr


def test_quota_counts_the_sidecar_and_lets_the_pod_in(workloads: Workloads) -> None:
    pod = workloads.wait_running("limited")
    app = containers_of(pod)["app"]
    assert app["resources"]["limits"] == {"cpu": "500m", "memory": "256Mi"}

    def used() -> tuple[str, str]:
        found = workloads.limited.get("resourcequota", "total")["status"]["used"]
        return found["pods"], found["limits.cpu"]

    eventually(lambda: used() == ("1", "1500m"), lambda: f"what the quota counts: {used()}")


def test_dry_run_of_every_object_leaves_no_trace(workloads: Workloads) -> None:
    objects = [each for each in manifest(workloads.shop.cluster, "workloads") if each["kind"] == "Pod"]
    for each in objects:
        each["metadata"]["name"] += "-dry"
    done = workloads.shop.run("create", "--dry-run=server", "--filename=-", stdin=as_list(objects))
    assert done.returncode == 0, done.stderr
    assert not [pod for pod in workloads.shop.pods() if pod["metadata"]["name"].endswith("-dry")]


def test_pod_with_a_user_namespace_runs_where_the_node_can(workloads: Workloads) -> None:
    """Measured against the same pod without us: a node whose runtime has no user namespaces starts neither."""
    cluster, where = workloads.shop.cluster, workloads.shop
    spec = {"hostUsers": False}
    where.apply(
        a_pod(cluster, "users-plain", labels={names.INJECT_LABEL: names.INJECT_DISABLED}, spec=spec),
        a_pod(cluster, "users", spec=spec),
    )

    def outcome() -> str:
        pod = where.get("pod", "users-plain")
        if is_ready(pod):
            return "runs"
        events = where.get("events", "--field-selector=involvedObject.name=users-plain")["items"]
        failed = [each["message"] for each in events if each["reason"] in ("FailedCreatePodSandBox", "Failed")]
        return failed[0] if failed else ""

    found = eventually(outcome, "the plain pod with a user namespace runs or is refused by the node")
    assert is_injected(where.get("pod", "users"))
    if found == "runs":
        where.wait_ready("users")
    where.kubectl("delete", "pod", "users", "users-plain", "--wait=false")
    if found != "runs":
        pytest.skip(f"this node has no user namespaces for pods: {found[:200]}")
