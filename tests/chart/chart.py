"""The chart as the tests see it: rendered by helm, and label selectors evaluated as the API server does."""

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml

from cluster import binaries, recipes, versions
from cluster.layout import REPOSITORY, Cache

CHART: Final = REPOSITORY / "charts" / "autotls"
NAMESPACE: Final = "autotls"


class HelmError(Exception):
    """helm refused; the text is what it wrote on stderr."""


@lru_cache(maxsize=1)
def helm() -> Path:
    """The helm of the cluster's build (made once, cached), or the one that AUTOTLS_HELM names."""
    if named := os.environ.get("AUTOTLS_HELM"):
        return Path(named)
    recipe = next(recipe for recipe in recipes.node_programs() if recipe.name == "helm")
    return binaries.ensure(Cache.from_environment(), recipe) / "helm"


def run_helm(*arguments: str) -> str:
    """What helm wrote on stdout. Raises HelmError."""
    done = subprocess.run([str(helm()), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise HelmError(done.stderr)
    return done.stdout


def template(
    *arguments: str, namespace: str = NAMESPACE, release: str = "autotls", kubernetes: str = versions.KUBERNETES
) -> str:
    """The rendered chart, as text. Raises HelmError."""
    return run_helm("template", release, str(CHART), "--namespace", namespace, "--kube-version", kubernetes, *arguments)


@dataclass(frozen=True, slots=True)
class Rendered:
    """The chart's objects."""

    objects: tuple[dict[str, Any], ...]

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """The object of that kind and name. Raises KeyError."""
        for item in self.of(kind):
            if item["metadata"]["name"] == name:
                return item
        raise KeyError(f"{kind}/{name}")

    def of(self, kind: str) -> Iterator[dict[str, Any]]:
        return (item for item in self.objects if item["kind"] == kind)


def render(*arguments: str, **options: str) -> Rendered:
    """The rendered chart, parsed. Raises HelmError."""
    documents = yaml.safe_load_all(template(*arguments, **options))
    return Rendered(tuple(document for document in documents if document))


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector matches (apimachinery pkg/labels selector.go: NotIn also matches an absent key)."""
    if not selector:
        return True
    wanted: Mapping[str, str] = selector.get("matchLabels") or {}
    expressions: Sequence[Mapping[str, Any]] = selector.get("matchExpressions") or ()
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _expression_holds(expression, labels) for expression in expressions
    )


def _expression_holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value is not None and value in expression["values"]
        case "NotIn":
            return value is None or value not in expression["values"]
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case operator:
            raise AssertionError(f"no such operator: {operator}")
