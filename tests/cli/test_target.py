"""The namespace of a kubeconfig's context, read without ever failing."""

from pathlib import Path

import pytest

from cli.target import Target, context_namespace

GOOD = """
current-context: work
contexts:
- {name: work, context: {cluster: c, namespace: shop}}
- {name: other, context: {cluster: c}}
"""


@pytest.mark.parametrize(
    ("text", "context", "found"),
    [
        (GOOD, None, "shop"),
        (GOOD, "other", None),
        (GOOD, "absent", None),
        ("contexts: {work: {namespace: shop}}\ncurrent-context: work", None, None),
        ("contexts: [work]\ncurrent-context: work", None, None),
        ("contexts: [{name: work, context: shop}]\ncurrent-context: work", None, None),
        ("contexts: [{name: work, context: {namespace: 7}}]\ncurrent-context: work", None, None),
        ("a: [", None, None),
        ("- list", None, None),
    ],
)
def test_what_is_there_is_found_and_what_is_not_is_nothing(
    tmp_path: Path, text: str, context: str | None, found: str | None
) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    assert context_namespace(Target(str(path), context)) == found


def test_the_first_file_wins_as_with_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, namespace in (("one", "first"), ("two", "second")):
        (tmp_path / name).write_text(GOOD.replace("shop", namespace))
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'absent'}:{tmp_path / 'one'}:{tmp_path / 'two'}")
    assert context_namespace(Target(None, None)) == "first"
