"""`inject` and `uninject` on a corpus of manifests, with the webhook's own decision and patch."""

import difflib
import json
from pathlib import Path
from typing import Any

import jsonpatch
import msgspec
import pytest
import yaml

from cli.changes import webhook_change
from cli.document import Loader
from cli.errors import ManifestError
from cli.injection import Outcome, inject_text, uninject_text
from cli.workloads import POD_TEMPLATE
from mesh.config import MeshConfig
from mesh.pod import Namespace, ObjectMeta, Pod
from mesh.spiffe import TrustDomain
from webhook.decision import Inject, decide
from webhook.patch import build_patch

CONFIG = MeshConfig()
CORPUS = sorted(path for path in (Path(__file__).parent / "manifests").iterdir())


def read(path: Path) -> str:
    return path.read_bytes().decode()


def inject(text: str, *, mode: Any = None, namespaces: dict[str, Namespace] | None = None) -> str:
    change = webhook_change(CONFIG, namespaces or {}, default_namespace="default", mode=mode, origin="test")
    return inject_text(text, origin="test", change=change)[0]


def uninject(text: str) -> str:
    return uninject_text(text, origin="test")[0]


def load(text: str) -> list[Any]:
    """What Kubernetes would read, with nothing shared."""
    documents = yaml.load_all(text.removeprefix("\ufeff"), Loader=Loader)
    return [json.loads(json.dumps(document)) for document in documents]


def pods(objects: list[Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every pod template with its namespace."""
    found: list[tuple[str, dict[str, Any]]] = []
    for item in objects:
        if item is None:
            continue
        if item["kind"] == "List":
            found += pods(item["items"])
        elif item["kind"] in POD_TEMPLATE:
            template = item
            for step in POD_TEMPLATE[item["kind"]]:
                template = template[step]
            found.append(((item.get("metadata") or {}).get("namespace", "default"), template))
    return found


def with_webhook_patch(objects: list[Any]) -> list[Any]:
    """The same objects, each pod template patched as the webhook patches a pod."""
    for namespace, template in pods(objects):
        template["metadata"] = template.get("metadata") or {}
        pod = msgspec.convert({"metadata": template["metadata"], "spec": template["spec"]}, Pod)
        decision = decide(pod, Namespace(metadata=ObjectMeta(name=namespace)), CONFIG, called=True)
        if isinstance(decision, Inject):
            identity = TrustDomain.parse(CONFIG.trust_domain).workload(namespace, pod.spec.service_account)
            template.update(jsonpatch.apply_patch(template, list(build_patch(pod, identity, decision, CONFIG))))
    return objects


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_injected_text_holds_exactly_what_the_webhook_would_make(path: Path) -> None:
    text = read(path)
    assert load(inject(text)) == with_webhook_patch(load(text))
    assert inject(text) != text


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
@pytest.mark.parametrize("mode", [None, "optional", "strict"])
def test_uninject_gives_the_input_back_byte_for_byte(path: Path, mode: str | None) -> None:
    text = read(path)
    assert uninject(inject(text, mode=mode)).encode() == path.read_bytes()


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_already_injected_input_is_left_as_it_is(path: Path) -> None:
    once = inject(read(path))
    assert inject(once) == once


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_text_that_was_never_injected_is_left_as_it_is(path: Path) -> None:
    assert uninject(read(path)) == read(path)


@pytest.mark.parametrize("name", ["deployment-plain", "comments-everywhere", "block-scalars", "skipped"])
def test_in_block_style_lines_are_added_and_no_line_changes(name: str) -> None:
    before = read(Path(__file__).parent / "manifests" / f"{name}.yaml")
    difference = list(difflib.ndiff(before.splitlines(), inject(before).splitlines()))
    assert not [line for line in difference if line.startswith("- ")]
    assert [line for line in difference if line.startswith("+ ")]


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_reformatted_text_is_uninjected_to_the_same_objects(path: Path) -> None:
    injected = load(inject(read(path)))
    for text in (yaml.safe_dump_all(injected), yaml.safe_dump_all(injected, default_flow_style=True, indent=4)):
        assert without_empty(load(uninject(text))) == without_empty(load(read(path)))


def test_json_that_was_reformatted_is_uninjected_to_the_same_object() -> None:
    text = read(Path(__file__).parent / "manifests" / "pretty.json")
    assert json.loads(uninject(json.dumps(json.loads(inject(text)), indent=2))) == json.loads(text)


def without_empty(value: Any) -> Any:
    """Without empty collections and nulls: reformatting forgets whether one was there before ours."""
    if isinstance(value, dict):
        kept = {key: without_empty(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in ({}, [], None)}
    return [without_empty(item) for item in value] if isinstance(value, list) else value


def test_json_stays_json() -> None:
    for name in ("pretty.json", "compact.json"):
        assert json.loads(inject(read(Path(__file__).parent / "manifests" / name)))


def pod(extra: str = "", meta: str = "") -> str:
    return f"apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n{meta}spec:\n{extra}  containers:\n  - name: a\n"


def reports(text: str) -> list[tuple[str, str]]:
    change = webhook_change(CONFIG, {}, default_namespace="default", mode=None, origin="test")
    return [(report.outcome, report.reason) for report in inject_text(text, origin="test", change=change)[1]]


def test_skipped_workloads_are_reported_with_the_webhooks_reason() -> None:
    outcome, reason = reports(pod("  hostNetwork: true\n"))[0]
    assert (outcome, reason.split(":")[0]) == (Outcome.SKIPPED, "host_network")
    outcome, reason = reports(inject(pod()))[0]
    assert (outcome, reason.split(":")[0]) == (Outcome.SKIPPED, "already_injected")


def test_the_namespaces_labels_count() -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    restricted = {"default": Namespace(metadata=ObjectMeta(name="default", labels=labels))}
    assert [c["name"] for c in load(inject(pod(), namespaces=restricted))[0]["spec"]["initContainers"]] == [
        "autotls-proxy"
    ]


def test_tls_writes_the_mode_as_a_label_and_uninject_takes_it_out() -> None:
    text = inject(pod(), mode="strict")
    assert load(text)[0]["metadata"]["labels"]["autotls.io/tls"] == "strict"
    assert uninject(text) == pod()


def test_a_mode_of_the_workloads_own_wins_over_tls_and_survives_uninject() -> None:
    own = pod(meta="  labels:\n    autotls.io/tls: strict\n")
    change = webhook_change(CONFIG, {}, default_namespace="default", mode="optional", origin="test")
    text, found = inject_text(own, origin="test", change=change)
    assert load(text)[0]["metadata"]["labels"]["autotls.io/tls"] == "strict"
    assert "is kept" in found[0].warnings[0]
    assert uninject(text) == own


def test_an_invalid_setting_of_a_strict_pod_is_an_error() -> None:
    meta = "  labels: {autotls.io/tls: strict}\n  annotations: {config.autotls.io/inbound: wild}\n"
    with pytest.raises(ManifestError, match=r'test:1: .*config.autotls.io/inbound: "wild"'):
        inject(pod(meta=meta))


def test_two_workloads_with_one_template_by_an_alias_are_both_injected() -> None:
    text = (
        "kind: List\napiVersion: v1\nitems:\n"
        "- {kind: Job, apiVersion: v1, metadata: {name: a}, spec: &s {template: {spec: {containers: [{name: a}]}}}}\n"
        "- {kind: Job, apiVersion: batch/v1, metadata: {name: b}, spec: *s}\n"
    )
    assert [template["spec"]["volumes"][0]["name"] for _, template in pods(load(inject(text)))] == [
        "autotls-identity",
        "autotls-identity",
    ]
    assert uninject(inject(text)) == text


@pytest.mark.parametrize(
    ("meta", "extra"),
    [
        pytest.param("  labels: &l {a: b}\n  annotations: *l\n", "", id="labels that are also the annotations"),
        pytest.param("", "  x: &v [{name: v}]\n  volumes: *v\n", id="a list by an alias"),
        pytest.param("", "  volumes: &v [{name: v}]\n  x: *v\n", id="a list that is used again"),
        pytest.param("  annotations: {autotls.io/version: old}\n", "", id="an annotation of ours with another value"),
    ],
)
def test_what_cannot_be_spliced_is_an_error_and_never_a_wrong_result(meta: str, extra: str) -> None:
    with pytest.raises(ManifestError) as error:
        inject(pod(extra, meta))
    assert error.value.hint


def test_text_injected_by_another_version_is_uninjected_exactly() -> None:
    text = inject(pod(meta="  labels: {}\n"), mode="optional")
    older = text.replace("0.1.0", "0.0.7").replace("AUTOTLS_DRAIN_SECONDS", "AUTOTLS_OTHER").replace("8Mi", "9Mi")
    assert older != text
    assert uninject(older) == pod(meta="  labels: {}\n")


@pytest.mark.parametrize("namespace", ["y", "n", "on", "null", "1e3", "0x1f", "12e3", "1-1", "a"])
def test_text_that_kubernetes_would_take_for_something_else_is_quoted(namespace: str) -> None:
    config = msgspec.structs.replace(CONFIG, control_plane_namespace=namespace)
    change = webhook_change(config, {}, default_namespace="default", mode=None, origin="test")
    text = inject_text(pod(), origin="test", change=change)[0]
    written = f"autotls.io/mesh: {namespace}\n" if namespace == "a" else f'autotls.io/mesh: "{namespace}"\n'
    assert written in text
    assert uninject(text) == pod()
