"""The documents list what there is: every value, every setting, every dependency."""

import re
import tomllib
from collections.abc import Iterator
from typing import Any

import yaml

from cluster.layout import REPOSITORY
from mesh import names
from mesh.settings import SETTINGS
from tests.chart.chart import CHART, render


def document(name: str) -> str:
    return (REPOSITORY / name).read_text()


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of the values; `resources` of Kubernetes and empty or free-form maps count as one."""
    for key, value in values.items():
        closed = isinstance(value, dict) and value and not {"requests", "kubernetes.io/os"} & value.keys()
        if closed:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def test_every_value_of_the_chart_is_documented_and_no_other() -> None:
    listed = set(re.findall(r"^\| `([A-Za-z.]+)` \|", document("docs/settings.md"), re.MULTILINE))
    assert listed == set(leaves(yaml.safe_load((CHART / "values.yaml").read_text())))


def test_every_default_that_is_one_word_is_documented_as_it_is() -> None:
    rows = dict(re.findall(r"^\| `([A-Za-z.]+)` \| `([^`]+)` \|", document("docs/settings.md"), re.MULTILINE))
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def value(path: str) -> Any:
        found = values
        for part in path.split("."):
            found = found[part]
        return found

    shown = {path: str(value(path)).lower() if isinstance(value(path), bool) else str(value(path)) for path in rows}
    shown["identity.renewAt"] = "0.666…"
    shown["nodeSelector"] = "kubernetes.io/os: linux"
    assert len(rows) > 30
    assert rows == shown


def test_every_setting_of_a_pod_is_documented_and_no_other() -> None:
    listed = re.findall(
        rf"^\| `{re.escape(names.SETTING_PREFIX)}([a-z-]+)` \|", document("docs/settings.md"), re.MULTILINE
    )
    assert sorted(listed) == sorted(SETTINGS)


def test_every_python_dependency_is_documented_and_no_other() -> None:
    project = tomllib.loads(document("pyproject.toml"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    text = document("docs/dependencies.md").split("## Debian packages")[0]
    listed = re.findall(r"^\| `([a-z0-9-]+)` \|", text, re.MULTILINE)
    assert sorted(listed) == sorted(re.split(r"[\[=<>]", one)[0] for one in wanted)


def test_links_between_documents_lead_somewhere() -> None:
    for name in ("docs/architecture.md", "docs/settings.md", "SECURITY.md", "README.md"):
        for link in re.findall(r"\]\(([^)#:]+)\)", document(name)):
            target = (REPOSITORY / name).parent / link
            assert target.exists(), f"{name}: {link}"


def test_policies_that_security_describes_are_those_of_the_chart() -> None:
    described = set(re.findall(r"`(autotls-ca-[a-z]+)`:", document("SECURITY.md")))
    assert described == {policy["metadata"]["name"] for policy in render().of("ValidatingAdmissionPolicy")}
