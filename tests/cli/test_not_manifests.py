"""Input that is no Kubernetes YAML: a message with file, line and reason, and never anything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.changes import webhook_change
from cli.errors import ManifestError
from cli.injection import inject_text, uninject_text
from mesh.config import MeshConfig

CHANGE = webhook_change(MeshConfig(), {}, default_namespace="default", mode=None, origin="app.yml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "hello world\n", "app.yml:1: a Kubernetes object is a mapping, this is the text 'hello world'", id="prose"
        ),
        pytest.param("---\n- a\n- b\n", "app.yml:2: a Kubernetes object is a mapping, this is a list", id="list"),
        pytest.param("a: 1\n", "app.yml:1: not a Kubernetes object: apiVersion and kind missing", id="other YAML"),
        pytest.param("kind: Pod\n", "app.yml:1: not a Kubernetes object: apiVersion missing", id="no apiVersion"),
        pytest.param("a: 1\nb: [1\nc: 2\n", "app.yml:3: not YAML: ", id="unclosed list"),
        pytest.param("a: 1\n\tb: 2\n", "app.yml:2: not YAML: found a tab character", id="tab"),
        pytest.param("a: \x00\n", "app.yml:1: not YAML: ", id="control character"),
        pytest.param("a: *b\n", "app.yml:1: not YAML: found undefined alias", id="undefined alias"),
        pytest.param("apiVersion: v1\nkind: Pod\n", "app.yml:1: Pod without spec.containers", id="pod without spec"),
        pytest.param(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {}\n",
            "app.yml:4: Deployment without spec.template",
            id="deployment without template",
        ),
        pytest.param(
            "apiVersion: v1\nkind: Pod\nspec: {containers: [a]}\n",
            "app.yml:1: Pod <no name>: Expected `object`, got `str` - at `$.spec.containers[0]`",
            id="wrong type",
        ),
        pytest.param(
            "apiVersion: v1\nkind: Pod\nspec:\n  containers: [{name: a}]\n  volumes: []\n  volumes: []\n",
            "app.yml:6: key 'volumes' is there twice in one mapping",
            id="a key twice",
        ),
        pytest.param("a: &a [*a]\n", "app.yml:1: cannot be read: ", id="an endless alias"),
        pytest.param("a: !!int x\n", "app.yml:1: cannot be read: ", id="a wrong tag"),
        pytest.param("a: !secret x\n", "app.yml:1: not YAML: could not determine a constructor", id="an own tag"),
        pytest.param("{a: b}: c\n", "app.yml:1: not YAML: found unhashable key", id="a mapping as key"),
    ],
)
def test_the_message_names_file_line_and_reason(text: str, message: str) -> None:
    for act in (
        lambda: inject_text(text, origin="app.yml", change=CHANGE),
        lambda: uninject_text(text, origin="app.yml"),
    ):
        try:
            act()
        except ManifestError as error:
            assert error.message.startswith(message), error.message
        else:
            # Only inject looks into containers.
            assert "Expected" in message


def test_a_template_gets_the_hint_to_render_it() -> None:
    with pytest.raises(ManifestError, match="render it first"):
        inject_text("a: {{ .Values.a }}\nb: [{{\n", origin="app.yml", change=CHANGE)


def test_a_billion_laughs_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(ManifestError, match="expand without end"):
        inject_text("\n".join(lines), origin="app.yml", change=CHANGE)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_with_a_manifest_error(text: str) -> None:
    try:
        result, _ = inject_text(text, origin="app.yml", change=CHANGE)
    except ManifestError as error:
        assert error.message.startswith("app.yml:")
    else:
        assert result == text


STRUCTURE = st.sampled_from(
    ["- ", "  ", "\n", ": ", "{", "}", "[", "]", "a", "kind: Pod\n", "&a ", "*a", "# c\n", "|\n", "? "]
)


@given(st.lists(STRUCTURE, max_size=30).map("".join))
def test_any_structure_is_read_or_refused_with_a_manifest_error(text: str) -> None:
    for act in (
        lambda: inject_text(text, origin="app.yml", change=CHANGE),
        lambda: uninject_text(text, origin="app.yml"),
    ):
        try:
            act()
        except ManifestError as error:
            assert error.message.startswith("app.yml:")
