"""The commands as a user meets them: streams, exit codes, and never a traceback."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli import installation, main
from cli.checks.model import Verdict
from cli.commands import check, uninstall
from kube.client import Api
from kube.errors import UnreachableError
from mesh import names
from tests.cli.installed import NOW, Cluster, healthy_cluster

POD = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: a\n"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run(*arguments)` -> exit code, stdout, stderr; no kubeconfig but what a test makes."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))

    def invoke(*arguments: str) -> tuple[int, str, str]:
        code = main.run(list(arguments))
        out, err = capfdbinary.readouterr()
        return code, out.decode(), err.decode()

    return invoke


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cluster:
    """A healthy installation behind every command's `connect`."""
    found, _ = healthy_cluster()

    @asynccontextmanager
    async def connect(*, kubeconfig: str | None = None, context: str | None = None) -> AsyncIterator[Api]:
        yield found

    for module in (installation, check, uninstall):
        monkeypatch.setattr(module, "connect", connect)
    monkeypatch.setattr(check, "utc_now", lambda: NOW)
    current = {"current-context": "c", "contexts": [{"name": "c", "context": {"namespace": "shop"}}]}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(current))
    return found


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_bytes(text.encode())
    return str(folder / name)


def test_inject_writes_yaml_to_stdout_and_reports_to_stderr(run: Run, tmp_path: Path) -> None:
    service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\n"
    code, out, err = run("inject", "--ignore-cluster", write(tmp_path, "a.yml", POD + service))
    assert code == 0
    assert [each["kind"] for each in yaml.safe_load_all(out)] == ["Pod", "Service"]
    assert err.splitlines() == ["pod/a injected", "service/s not a workload"]


def test_uninject_gives_the_bytes_back(run: Run, tmp_path: Path) -> None:
    text = POD.replace("\n", "\r\n")
    _, injected, _ = run("inject", "--ignore-cluster", "--tls=strict", write(tmp_path, "a.yml", text))
    assert "autotls.io/tls: strict" in injected
    assert run("uninject", write(tmp_path, "b.yml", injected))[1] == text


def test_standard_input_is_read(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cli.main", "inject", "--ignore-cluster", "-"]
    done = subprocess.run(command, input=POD, capture_output=True, text=True, check=True)
    assert "autotls-proxy" in done.stdout


def test_a_folder_is_one_stream(run: Run, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    for name, text in (
        ("b.yaml", POD.rstrip()),
        ("a.json", json.dumps(yaml.safe_load(POD))),
        ("c.txt", "no"),
        ("more/d.yml", POD),
    ):
        write(tmp_path, name, text)
    code, out, _ = run("uninject", str(tmp_path))
    assert (code, len(list(yaml.safe_load_all(out)))) == (0, 2)
    assert len(list(yaml.safe_load_all(run("uninject", "-R", str(tmp_path))[1]))) == 3


@pytest.mark.parametrize("command", ["inject", "uninject"])
def test_input_that_is_no_manifest_gives_nothing_on_stdout(run: Run, tmp_path: Path, command: str) -> None:
    good, bad = write(tmp_path, "good.yml", POD), write(tmp_path, "bad.yml", POD + "---\nkind: [Pod\nx: y\n")
    code, out, err = run(command, *(("--ignore-cluster",) if command == "inject" else ()), good, bad)
    assert (code, out) == (1, "")
    assert f"error: {bad}:10: not YAML: " in err
    assert "Traceback" not in err


def test_bytes_that_are_not_utf_8_are_an_error_with_their_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_bytes(b"a: 1\nb: \xff\n")
    assert run("uninject", str(tmp_path / "a.yml"))[::2] == (
        1,
        f"error: {tmp_path / 'a.yml'}:2: not UTF-8\nhint: Kubernetes reads UTF-8 only\n",
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("inject",), 2),
        (("inject", "--tls=loose", "a"), 2),
        (("nonsense",), 2),
        (("inject", "no-such-file"), 1),
        (("inject", "-", "-"), 1),
        (("check",), 1),
        (("check", "--wait", "soon"), 2),
        (("uninstall",), 1),
        (("install", "-n", "A"), 1),
        (("version",), 0),
        (("--help",), 0),
    ],
)
def test_exit_codes(run: Run, arguments: tuple[str, ...], code: int) -> None:
    found, _, err = run(*arguments)
    assert found == code
    assert "Traceback" not in err
    assert bool(err) == (code != 0) or arguments == ("--help",)


def test_a_fault_of_ours_is_told_without_a_traceback_unless_asked_for(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> None:
        raise ZeroDivisionError("secret of the house")

    monkeypatch.setattr(main.cli, "main", broken)
    code, out, err = run("version")
    assert (code, out) == (1, "")
    assert "error: autotls failed in a way it should not: ZeroDivisionError" in err
    assert "--debug" in err
    with pytest.raises(ZeroDivisionError):
        run("--debug", "version")


def test_colour_is_for_terminals(run: Run, cluster: Cluster) -> None:
    assert "\x1b" not in "".join(map(str, run("check")))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_names_the_command(run: Run, shell: str) -> None:
    code, out, _ = run("completion", shell)
    assert code == 0
    assert "_AUTOTLS_COMPLETE" in out


def test_completion_completes() -> None:
    environment = {"_AUTOTLS_COMPLETE": "bash_complete", "COMP_WORDS": "autotls un", "COMP_CWORD": "1", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-m", "cli.main"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["plain,uninstall", "plain,uninject"]


def test_offline_commands_do_not_load_the_kubernetes_client() -> None:
    code = "import sys; from cli.main import run; run(['uninject', '-']); run(['install', '--no-helm'])"
    code += (
        "; print([m for m in sys.modules if m.split('.')[0] in ('kubernetes', 'aiohttp', 'fastapi')], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=POD, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_inject_uses_the_installations_settings_and_namespaces(run: Run, cluster: Cluster, tmp_path: Path) -> None:
    path = f"/api/v1/namespaces/autotls/configmaps/{names.CONFIG_MAP}"
    text = cluster.get(path)["data"][names.CONFIG_KEY].replace("cluster.local", "corp.example")
    cluster.edit(path, data={names.CONFIG_KEY: text})
    labels = {"pod-security.kubernetes.io/enforce": "baseline"}
    cluster.seed({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}})
    _, out, err = run("inject", write(tmp_path, "a.yml", POD))
    pod = yaml.safe_load(out)
    assert pod["metadata"]["annotations"][names.IDENTITY_ANNOTATION] == "spiffe://corp.example/ns/shop/sa/default"
    assert [each["name"] for each in pod["spec"]["initContainers"]] == [names.PROXY_CONTAINER]
    assert err.splitlines() == [
        "the settings of the installation in namespace autotls are used",
        "pod/a injected (no_redirect)",
    ]


def test_inject_goes_on_without_a_cluster_that_answers(run: Run, cluster: Cluster, tmp_path: Path) -> None:
    cluster.faults.down = True
    code, out, err = run("inject", write(tmp_path, "a.yml", POD))
    assert code == 0
    assert "autotls-init" in out
    assert "the default settings are used" in err.splitlines()[0]


def test_inject_takes_settings_from_a_file(run: Run, tmp_path: Path) -> None:
    config = write(tmp_path, "config.yaml", "trustDomain: corp.example\n")
    _, out, _ = run("inject", "--ignore-cluster", "--config", config, write(tmp_path, "a.yml", POD))
    assert "spiffe://corp.example/ns/default/sa/default" in out
    bad = write(tmp_path, "bad.yaml", "trustDomian: x\n")
    code, out, err = run("inject", "--ignore-cluster", "--config", bad, write(tmp_path, "a.yml", POD))
    assert (code, out) == (1, "")
    assert "trustDomian" in err


def test_check_shows_every_section_and_its_exit_code(run: Run, cluster: Cluster) -> None:
    code, out, err = run("check")
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if line and not line.startswith(" ")][:-1] == [
        "control plane",
        "certificates",
        "coverage",
        "sidecars",
        "data plane",
        "conflicts",
    ]
    cluster.webhook = False
    code, out, _ = run("check", "-o", "json")
    assert code == 1
    failed = [each["id"] for each in json.loads(out)["checks"] if each["verdict"] == Verdict.FAIL]
    assert "webhook-called" in failed


def test_check_waits_until_all_is_well(run: Run, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.faults.refuse(2, UnreachableError("ConnectionRefusedError", "nobody listens"))
    monkeypatch.setattr(check, "_RETRY_S", 0.0)
    code, out, err = run("check", "--wait", "1m")
    assert "waiting (" in err
    assert out.count("control plane\n") == 1
    assert code == 0


def test_version_tells_both_sides(run: Run, cluster: Cluster) -> None:
    assert run("version")[1] == "client: 0.1.0\ncontrol plane: 0.1.0\n"
    assert json.loads(run("version", "--client", "-o", "json")[1]) == {"client": "0.1.0", "controlPlane": {}}


def uninstalled(text: str) -> set[tuple[str, str, str]]:
    return {
        (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"])
        for each in yaml.safe_load_all(text)
        if each
    }


def test_uninstall_names_everything_but_the_root(run: Run, cluster: Cluster) -> None:
    foreign: dict[str, Any] = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine", "namespace": "shop"}}
    cluster.seed(foreign)
    code, out, err = run("uninstall")
    found = uninstalled(out)
    assert code == 0
    assert {
        ("MutatingWebhookConfiguration", "", "autotls"),
        ("Secret", "shop", "autotls-identity-web"),
        ("Secret", "autotls", names.WEBHOOK_TLS_SECRET),
        ("ConfigMap", "shop", names.TRUST_BUNDLE_CONFIG_MAP),
        ("Lease", "autotls", names.CA_LEASE),
        ("Deployment", "autotls", names.CA),
        ("ClusterRole", "", names.CA),
    } <= found
    assert not {each for each in found if each[2] in (names.ROOT_SECRET, names.ISSUER_SECRET, "mine")}
    assert ("Namespace", "", "autotls") not in found
    assert "tls.key" not in out
    assert "kubectl label namespace shop autotls.io/inject-" in err
    assert "2 injected pods keep their sidecars" in err


def test_uninstall_purge_names_the_rest(run: Run, cluster: Cluster) -> None:
    kept = uninstalled(run("uninstall")[1])
    assert uninstalled(run("uninstall", "--purge")[1]) - kept == {
        ("Secret", "autotls", names.ROOT_SECRET),
        ("Secret", "autotls", names.ISSUER_SECRET),
        ("Namespace", "", "autotls"),
    }


def test_uninstall_leaves_out_what_goes_by_itself(run: Run, cluster: Cluster) -> None:
    """`kubectl delete` ends with an error for what the garbage collector, or the end of a namespace, took first."""
    labels = {names.MANAGED_BY_LABEL: names.MANAGED_BY, names.CONTROL_PLANE_LABEL: "autotls"}
    registrations = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
    optional = cluster.get(f"{registrations}/{names.REGISTRATION}")
    owner = {"apiVersion": optional["apiVersion"], "kind": optional["kind"], "name": names.REGISTRATION}
    metadata = {"labels": labels, "ownerReferences": [owner | {"uid": optional["metadata"]["uid"]}]}
    cluster.edit(
        f"{registrations}/{names.STRICT_REGISTRATION}", metadata={"name": names.STRICT_REGISTRATION} | metadata
    )
    stamp = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    cluster.seed(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "going"} | stamp},
        *(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": labels} | more}
            for name, more in (
                ("in-going", {"namespace": "going"}),
                ("itself", {"namespace": "shop"} | stamp),
                ("stays", {"namespace": "shop"}),
            )
        ),
    )
    found = {name for _, _, name in uninstalled(run("uninstall")[1])}
    assert names.REGISTRATION in found and "stays" in found
    assert found.isdisjoint({names.STRICT_REGISTRATION, "in-going", "itself"})
