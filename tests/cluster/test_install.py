"""Install, upgrade and uninstall on a real cluster, by chart and by command; autotls is left as it was found.

One story in the order of this file: each test starts where the one before it ended, because every installation costs
half a minute.
"""

import json
import subprocess
import tempfile
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
import yaml

from cluster import install
from mesh import names
from tests.cluster.kubectl import (
    OPTED_IN,
    Object,
    Space,
    a_pod,
    containers_of,
    eventually,
    is_injected,
    run_autotls,
    run_kubectl,
    space,
)
from tests.fixtures_cluster import RunningCluster

pytestmark = pytest.mark.cluster

# Far above what a busy machine needs; below the deadline of the commands that are given it.
WAIT: Final = "540s"
NAMESPACE: Final = names.DEFAULT_CONTROL_PLANE_NAMESPACE
REGISTRATIONS: Final = {names.REGISTRATION, names.STRICT_REGISTRATION}
KINDS: Final = (
    "mutatingwebhookconfigurations,validatingadmissionpolicies,validatingadmissionpolicybindings,"
    "clusterroles,clusterrolebindings"
)


def helm(cluster: RunningCluster, *arguments: str) -> str:
    argv = [str(cluster.folder.tools / "helm"), f"--kubeconfig={cluster.kubeconfig}", f"--namespace={NAMESPACE}"]
    done = subprocess.run([*argv, *arguments], capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def images(cluster: RunningCluster) -> dict[str, str]:
    """What `make up` imported into the node."""
    return json.loads((cluster.folder.root / "images.json").read_bytes())


def values(cluster: RunningCluster) -> list[str]:
    """Arguments for helm that name these images."""
    return install.chart_values(images(cluster))


@pytest.fixture(scope="module", autouse=True)
def left_as_found(cluster: RunningCluster) -> Iterator[None]:
    yield
    if not helm(cluster, "list", "--short").split():
        run_kubectl(cluster, "delete", KINDS, "--selector=app.kubernetes.io/name=autotls")
        in_namespace = "deployments,services,serviceaccounts,configmaps,roles,rolebindings,poddisruptionbudgets"
        run_kubectl(
            cluster, "delete", in_namespace, f"--namespace={NAMESPACE}", "--selector=app.kubernetes.io/name=autotls"
        )
    install.helm_install(cluster.folder, images(cluster))


@pytest.fixture(scope="module")
def town(cluster: RunningCluster) -> Iterator[Space]:
    """One opted-in namespace for the whole story."""
    with space(cluster, "town", labels=OPTED_IN) as made:
        eventually(lambda: made.find("secret", names.identity_secret_name("default")), "the identity of default")
        yield made


def registrations(cluster: RunningCluster) -> set[str]:
    found = cluster.get("mutatingwebhookconfigurations")["items"]
    return {each["metadata"]["name"] for each in found} & REGISTRATIONS


def ca_bundles(cluster: RunningCluster) -> set[str | None]:
    """The caBundle of every entry of both registrations."""
    found = [cluster.get("mutatingwebhookconfiguration", name) for name in sorted(REGISTRATIONS)]
    return {entry["clientConfig"].get("caBundle") for each in found for entry in each["webhooks"]}


def certificate(cluster: RunningCluster, namespace: str, secret: str) -> str:
    """The public half of that Secret, as base64 text."""
    return cluster.get("secret", secret, f"--namespace={namespace}")["data"][names.TLS_CERT_KEY]


def tried(where: Space, **metadata: Any) -> Object:
    """A pod as the API server would store it. Fails the test when it is refused."""
    pod = json.dumps(a_pod(where.cluster, "tried", **metadata))
    return json.loads(where.kubectl("create", "--dry-run=server", "--output=json", "--filename=-", stdin=pod))


def wait_for_none(where: Space) -> None:
    """Pods start as if autotls had never been there, strict ones too.

    The garbage collector takes the strict registration, and the API server's own picture lags behind what is stored.
    """
    pods = [json.dumps(a_pod(where.cluster, "tried", labels=labels)) for labels in ({}, {names.MODE_LABEL: "strict"})]

    def bare() -> bool:
        arguments = ("create", "--dry-run=server", "--output=json", "--filename=-")
        done = [where.run(*arguments, stdin=pod) for pod in pods]
        return all(each.returncode == 0 and not is_injected(json.loads(each.stdout)) for each in done)

    eventually(lambda: not registrations(where.cluster), lambda: f"no registration: {registrations(where.cluster)}")
    eventually(bare, "pods without a sidecar")


def wait_for_injection(where: Space) -> None:
    """Both registrations work: a strict pod, which is refused when its call fails, comes out with the sidecar."""
    pod = json.dumps(a_pod(where.cluster, "tried", labels={names.MODE_LABEL: "strict"}))

    def injected() -> bool:
        done = where.run("create", "--dry-run=server", "--output=json", "--filename=-", stdin=pod)
        return done.returncode == 0 and is_injected(json.loads(done.stdout)) and is_injected(tried(where))

    eventually(injected, "pods get their sidecar")


class Admissions:
    """What became of one pod after the other while something else happened."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        self.bare = 0
        self.injected = 0


@contextmanager
def admissions(where: Space, mode: str) -> Generator[Admissions]:
    """Tries pods for as long as the block runs."""
    pod = json.dumps(a_pod(where.cluster, "tried", labels={names.MODE_LABEL: mode}))
    found, stop = Admissions(), threading.Event()

    def run() -> None:
        while not stop.wait(0.2):
            done = where.run("create", "--dry-run=server", "--output=json", "--filename=-", stdin=pod)
            if done.returncode:
                found.refused.append(done.stderr)
            elif is_injected(json.loads(done.stdout)):
                found.injected += 1
            else:
                found.bare += 1

    thread = threading.Thread(target=run, name=f"admissions-{mode}")
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def control_plane_pods(cluster: RunningCluster, *, ending: bool = False) -> set[str]:
    """With `ending` those on their way out too: the webhook serves on while it is drained."""
    found = cluster.get("pods", f"--namespace={NAMESPACE}", "--selector=app.kubernetes.io/name=autotls")["items"]
    return {pod["metadata"]["name"] for pod in found if ending or "deletionTimestamp" not in pod["metadata"]}


def identity_of(item: Object) -> tuple[str, str, str]:
    return item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]


def by_command(cluster: RunningCluster, *options: str) -> str:
    """What `autotls install` prints for the images on the node, which a file names."""
    used: Object = {}
    for key, name in (("controlPlane", "control-plane"), ("proxy", "proxy")):
        repository, _, tag = images(cluster)[name].rpartition(":")
        used[key] = {"repository": repository, "tag": tag}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump({"image": used}, file)
        file.flush()
        done = run_autotls(cluster, "install", f"--values={file.name}", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def comparable(text: str) -> dict[tuple[str, str, str], Object]:
    """Objects by identity; a checksum of a text that names versions of Kubernetes would differ, so none is left out."""
    return {identity_of(each): each for each in yaml.safe_load_all(text) if each}


def test_chart_passes_helms_own_lint(cluster: RunningCluster) -> None:
    assert "0 chart(s) failed" in helm(cluster, "lint", "--strict", str(install.CHART))


def test_command_and_chart_install_the_same_objects(cluster: RunningCluster) -> None:
    chart, command = comparable(helm(cluster, "get", "manifest", "autotls")), comparable(by_command(cluster))
    namespace = command.pop(("Namespace", "", NAMESPACE))
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert command == chart


def test_server_takes_every_object_of_the_command_without_a_warning(cluster: RunningCluster) -> None:
    text = by_command(cluster, "--tls=optional")
    # As a manager of its own, because as itself kubectl warns about objects that it once applied in the other way.
    arguments = ("--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "--field-manager=test")
    done = run_kubectl(cluster, "apply", *arguments, "--filename=-", stdin=text)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert done.stdout.count("(server dry run)") == len(comparable(text))


def test_upgrade_rolls_the_pods_keeps_the_ca_bundle_and_no_admission_fails(
    cluster: RunningCluster, town: Space
) -> None:
    bundles, before = ca_bundles(cluster), control_plane_pods(cluster)
    assert len(bundles) == 1
    assert None not in bundles
    with admissions(town, "strict") as strict, admissions(town, "optional") as optional:
        changed = ["--set=proxy.logLevel=info", "--set=webhook.timeoutSeconds=4"]
        helm(
            cluster, "upgrade", "autotls", str(install.CHART), *values(cluster), *changed, "--wait", f"--timeout={WAIT}"
        )

        def settled() -> bool:
            pods = control_plane_pods(cluster, ending=True)
            return len(pods) == 7 and not pods & before

        eventually(settled, lambda: f"seven new pods: {control_plane_pods(cluster, ending=True)}, before {before}")
        already = strict.injected
        eventually(lambda: strict.injected > already, "an admission after the roll")
    assert (strict.refused, strict.bare, optional.refused, optional.bare) == ([], 0, [], 0)
    assert optional.injected > 0
    assert ca_bundles(cluster) == bundles
    entries = cluster.get("mutatingwebhookconfiguration", names.REGISTRATION)["webhooks"]
    assert {entry["timeoutSeconds"] for entry in entries} == {4}
    sidecar = containers_of(tried(town))[names.PROXY_CONTAINER]
    assert {"name": "AUTOTLS_LOG_LEVEL", "value": "info"} in sidecar["env"]

    def strict_entries() -> bool:
        found = cluster.get("mutatingwebhookconfiguration", names.STRICT_REGISTRATION)["webhooks"]
        return {entry["timeoutSeconds"] for entry in found} == {4}

    eventually(strict_entries, "the CA has brought the strict registration up to date")


@pytest.fixture(scope="module")
def kept(cluster: RunningCluster, town: Space) -> dict[str, str]:
    """Certificates from before the first uninstall."""
    return {
        "root": certificate(cluster, NAMESPACE, names.ROOT_SECRET),
        "issuer": certificate(cluster, NAMESPACE, names.ISSUER_SECRET),
        "leaf": certificate(cluster, town.name, names.identity_secret_name("default")),
    }


def test_uninstall_leaves_no_registration_and_keeps_the_root(
    cluster: RunningCluster, town: Space, kept: dict[str, str]
) -> None:
    helm(cluster, "uninstall", "autotls", "--wait", f"--timeout={WAIT}")
    wait_for_none(town)
    assert certificate(cluster, NAMESPACE, names.ROOT_SECRET) == kept["root"]
    assert not cluster.get(KINDS, "--selector=app.kubernetes.io/name=autotls")["items"]


def test_check_of_what_is_not_installed_says_so(cluster: RunningCluster, town: Space) -> None:
    done = run_autotls(cluster, "check")
    assert done.returncode == 1
    assert "there is no MutatingWebhookConfiguration autotls" in done.stdout
    assert "autotls install | kubectl apply -f -" in done.stdout
    before = json.loads(run_autotls(cluster, "check", "--pre", "--output=json").stdout)
    assert before["summary"]["fail"] == before["summary"]["warn"] == 0, before
    assert "not installed" in run_autotls(cluster, "version").stdout


def test_command_installs_with_the_same_root_and_issues_nothing_anew(
    cluster: RunningCluster, town: Space, kept: dict[str, str]
) -> None:
    cluster.kubectl("apply", "--filename=-", stdin=by_command(cluster, "--tls=optional"))
    waited = run_autotls(cluster, "check", f"--wait={WAIT}")
    assert waited.returncode == 0, waited.stdout + waited.stderr
    wait_for_injection(town)
    assert kept == {
        "root": certificate(cluster, NAMESPACE, names.ROOT_SECRET),
        "issuer": certificate(cluster, NAMESPACE, names.ISSUER_SECRET),
        "leaf": certificate(cluster, town.name, names.identity_secret_name("default")),
    }


def generations(cluster: RunningCluster) -> dict[tuple[str, str, str], int]:
    """How often each object's specification has changed. (kubectl's word is "configured" for defaulted fields too.)"""
    inside = cluster.get("deployments,poddisruptionbudgets", f"--namespace={NAMESPACE}")["items"]
    found = [*cluster.get(KINDS, "--selector=app.kubernetes.io/name=autotls")["items"], *inside]
    return {identity_of(each): each["metadata"]["generation"] for each in found if "generation" in each["metadata"]}


def test_applying_the_same_again_changes_nothing(cluster: RunningCluster, town: Space) -> None:
    bundles, pods, before = ca_bundles(cluster), control_plane_pods(cluster), generations(cluster)
    assert {("Deployment", NAMESPACE, names.CA), ("MutatingWebhookConfiguration", "", names.REGISTRATION)} <= set(
        before
    )
    cluster.kubectl("apply", "--filename=-", stdin=by_command(cluster, "--tls=optional"))
    assert generations(cluster) == before
    assert ca_bundles(cluster) == bundles
    assert control_plane_pods(cluster) == pods


def test_command_uninstalls_everything_but_the_root(cluster: RunningCluster, town: Space, kept: dict[str, str]) -> None:
    printed = run_autotls(cluster, "uninstall")
    assert printed.returncode == 0, printed.stderr
    assert names.ROOT_SECRET not in {each["metadata"]["name"] for each in yaml.safe_load_all(printed.stdout)}
    deleted = run_kubectl(cluster, "delete", "--filename=-", stdin=printed.stdout)
    assert deleted.returncode == 0, deleted.stderr
    wait_for_none(town)
    assert not cluster.get(KINDS, "--selector=app.kubernetes.io/name=autotls")["items"]
    secrets = {each["metadata"]["name"] for each in cluster.get("secrets", f"--namespace={NAMESPACE}")["items"]}
    assert secrets & {names.ROOT_SECRET, names.ISSUER_SECRET, names.WEBHOOK_TLS_SECRET} == {
        names.ROOT_SECRET,
        names.ISSUER_SECRET,
    }
    assert town.find("secret", names.identity_secret_name("default")) is None


def test_chart_installs_again_with_the_root_that_was_kept(
    cluster: RunningCluster, town: Space, kept: dict[str, str]
) -> None:
    helm(cluster, "install", "autotls", str(install.CHART), *values(cluster), "--wait", f"--timeout={WAIT}")
    wait_for_injection(town)
    assert certificate(cluster, NAMESPACE, names.ROOT_SECRET) == kept["root"]
    eventually(lambda: town.find("secret", names.identity_secret_name("default")), "a new identity of default")
    assert certificate(cluster, town.name, names.identity_secret_name("default")) != kept["leaf"]
    waited = run_autotls(cluster, "check", f"--wait={WAIT}")
    assert waited.returncode == 0, waited.stdout + waited.stderr
