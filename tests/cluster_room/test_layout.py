"""Names and folders."""

from pathlib import Path

import pytest

from cluster.errors import HostError
from cluster.layout import Cache, ClusterName


@pytest.mark.parametrize("text", ["autotls", "ci-7", "a", "a" * 24])
def test_good_names_are_taken(text: str) -> None:
    assert ClusterName.parse(text).value == text


@pytest.mark.parametrize("text", ["", "A", "-a", "a-", "a/b", "../x", "a b", "a" * 25, "a\n"])
def test_names_that_would_make_bad_paths_are_refused(text: str) -> None:
    with pytest.raises(HostError, match="cannot be a cluster's name"):
        ClusterName.parse(text)


def test_a_cache_too_deep_for_unix_sockets_is_refused() -> None:
    deep = Cache(Path("/" + "d" * 60))
    with pytest.raises(HostError, match="too long a path") as caught:
        deep.cluster(ClusterName("autotls"))
    assert "AUTOTLS_CACHE" in caught.value.hint
    assert Cache(Path("/short")).cluster(ClusterName("autotls")).root == Path("/short/clusters/autotls")


def test_the_cache_is_where_the_makefile_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTLS_CACHE", "/somewhere")
    assert Cache.from_environment().root == Path("/somewhere")
    monkeypatch.delenv("AUTOTLS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert Cache.from_environment().root == Path("/xdg/autotls")
