"""`install`: with helm and without it, the same objects."""

import os
import shutil
from itertools import product
from typing import Any

import pytest
import yaml

from cli import chart
from cli.chart import ChartError, Wanted, render_by_helm, render_shipped
from cli.commands.install import namespace_manifest
from tests.chart.chart import CHART
from tests.chart.chart import helm as built_helm

DIGEST = "sha256:" + "0a" * 32


@pytest.fixture(scope="module")
def helm() -> str:
    """The helm of AUTOTLS_HELM or PATH, else that of the cluster's build (made when it is not there yet)."""
    named = os.environ.get("AUTOTLS_HELM") or shutil.which("helm")
    if named:
        return named
    return str(built_helm())


def objects(text: str) -> list[Any]:
    return [document for document in yaml.safe_load_all(text) if document]


SETS = [
    pytest.param((), id="defaults"),
    pytest.param(("mode=strict",), id="strict"),
    pytest.param(("trustDomain=corp.example", "webhook.replicas=3", "ca.replicas=1"), id="trust domain and replicas"),
    pytest.param(("image.proxy.tag=v9,image.controlPlane.repository=r.example/a/b",), id="images"),
    pytest.param((f"image.proxy.digest={DIGEST}", "mode=optional"), id="a digest"),
]


@pytest.mark.parametrize("sets", SETS)
@pytest.mark.parametrize("namespace", ["autotls", "a", "mesh-system", "zz"])
def test_the_shipped_manifest_is_what_helm_renders(helm: str, sets: tuple[str, ...], namespace: str) -> None:
    for kubernetes in (None, "1.29.0"):
        wanted = Wanted(namespace, sets, kubernetes=kubernetes)
        assert objects(render_shipped(wanted)) == objects(render_by_helm(wanted, helm))


def test_values_from_a_file_reach_both(helm: str, tmp_path: Any) -> None:
    file = tmp_path / "values.yaml"
    file.write_text("trustDomain: corp.example\nwebhook: {replicas: 4}\n")
    wanted = Wanted("autotls", ("webhook.replicas=5",), (str(file),))
    assert objects(render_shipped(wanted)) == objects(render_by_helm(wanted, helm))
    assert "replicas: 5" in render_shipped(wanted)


def test_the_chart_of_the_repository_is_used() -> None:
    assert chart.chart_folder() == CHART


def test_nothing_of_the_marks_remains() -> None:
    text = render_shipped(Wanted("autotls"))
    assert "mark" not in text.replace("benchmark", "")


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (("proxy.logLevel=debug",), "proxy.logLevel cannot be set without helm"),
        (("mode=loose",), "mode: 'loose' is not optional or strict"),
        (("trustDomain=A B",), "trustDomain: 'A B' is not a trust domain"),
        (("ca.replicas=0",), "ca.replicas: '0' is not a number from 1 to 20"),
        (("image.proxy.digest=1",), "image.proxy.digest: '1' is not sha256"),
        (("image.proxy.tag=a b",), "image.proxy.tag: 'a b' is not part of an image name"),
        (("mode",), "--set mode has no value"),
    ],
)
def test_what_the_shipped_manifest_cannot_take_is_refused(sets: tuple[str, ...], message: str) -> None:
    with pytest.raises(ChartError, match=message):
        render_shipped(Wanted("autotls", sets))


def test_helms_refusal_is_one_sentence(helm: str) -> None:
    with pytest.raises(ChartError, match=r"^helm: .*mode") as error:
        render_by_helm(Wanted("autotls", ("mode=loose",)), helm)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("namespace", ["", "A", "a b", "-a", "a" * 64, "x\ny: z"])
def test_a_bad_namespace_is_refused(namespace: str) -> None:
    with pytest.raises(ChartError, match="cannot be a namespace"):
        chart.render(Wanted(namespace), helm=None)


def test_the_namespace_enforces_the_strictest_pod_security() -> None:
    (namespace,) = objects(namespace_manifest("autotls"))
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_a_namespaced_object_is_always_in_the_namespace_asked_for() -> None:
    for namespace, mode in product(("a", "zz"), chart.MODES):
        found = {
            each["metadata"].get("namespace") for each in objects(render_shipped(Wanted(namespace, (f"mode={mode}",))))
        }
        assert found == {None, namespace}
