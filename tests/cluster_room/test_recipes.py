"""What is built, and when it is built again."""

import dataclasses

import pytest

from cluster import recipes, versions
from cluster.errors import BuildError

UPSTREAM = """module k8s.io/kubernetes

go 1.24.0

require (
	github.com/spf13/cobra v1.8.1
	k8s.io/api v0.0.0
)

replace (
	k8s.io/api => ./staging/src/k8s.io/api
	k8s.io/kubelet => ./staging/src/k8s.io/kubelet
)
"""


def test_staging_modules_are_replaced_by_the_release_that_goes_with_kubernetes() -> None:
    text = recipes.kubernetes_go_mod("1.33.13", UPSTREAM)
    assert "\tk8s.io/api => k8s.io/api v0.33.13" in text
    assert "\tk8s.io/kubelet => k8s.io/kubelet v0.33.13" in text
    assert "\tk8s.io/kubernetes v1.33.13" in text
    assert "\tgithub.com/spf13/cobra v1.8.1" in text
    assert "go 1.24.0" in text


def test_a_go_mod_of_another_form_is_refused() -> None:
    with pytest.raises(BuildError, match="unexpected form"):
        recipes.kubernetes_go_mod("1.33.13", "module k8s.io/kubernetes\n\ngo 1.24.0\n")


def test_the_locked_go_mod_agrees_with_the_pinned_version() -> None:
    locked = recipes.kubernetes().sources[-2]
    assert locked.name == "go.mod"
    text = locked.read_text()
    assert f"k8s.io/kubernetes v{versions.KUBERNETES}\n" in text
    assert f"k8s.io/api => k8s.io/api v0.{versions.KUBERNETES.split('.', 1)[1]}\n" in text


@pytest.mark.parametrize(
    ("name", "requirement"),
    [
        ("etcd", f"go.etcd.io/etcd/server/v3 v{versions.ETCD}"),
        ("coredns", f"github.com/coredns/coredns v{versions.COREDNS}"),
    ],
)
def test_our_modules_lock_the_version_that_names_their_build(name: str, requirement: str) -> None:
    (recipe,) = [recipe for recipe in recipes.node_programs() if recipe.name == name]
    (go_mod,) = [path for path in recipe.sources if path.name == "go.mod"]
    assert requirement in go_mod.read_text()


def test_another_version_is_built_from_its_own_go_mod() -> None:
    recipe = recipes.kubernetes("1.34.4", ("kube-apiserver",))
    assert [path.name for path in recipe.sources] == ["main.go", "apiserver.go"]
    assert "gitVersion=v1.34.4" in recipe.ldflags
    assert "gitMinor=34" in recipe.ldflags


def test_an_unknown_program_is_refused() -> None:
    with pytest.raises(BuildError, match="no program 'kubeadm'"):
        recipes.kubernetes(only=("kubeadm",))


def test_the_key_changes_with_everything_that_decides_the_result() -> None:
    recipe = recipes.kubernetes()
    key = recipes.cache_key(recipe, [b"source"])
    others = [
        recipes.cache_key(recipe, [b"other source"]),
        recipes.cache_key(dataclasses.replace(recipe, ldflags=""), [b"source"]),
        recipes.cache_key(dataclasses.replace(recipe, binaries=("kubectl",)), [b"source"]),
        recipes.cache_key(dataclasses.replace(recipe, version="1.0.0"), [b"source"]),
    ]
    assert key not in others
    assert key == recipes.cache_key(dataclasses.replace(recipe, minutes=99), [b"source"])
