"""The documents name what there is, and only that."""

import re
from pathlib import Path

from prometheus_client import REGISTRY

from mesh.config import MeshConfig
from mesh.settings import default_settings
from webhook import metrics
from webhook.decision import NO_REDIRECT, SkipReason
from webhook.sidecar import environment

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "webhook.md").read_text()


def test_reasons_are_listed_in_the_order_in_which_they_are_found() -> None:
    table = TEXT.partition("## Why")[2].partition("##")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [reason.value for reason in SkipReason]
    assert f"`{NO_REDIRECT}`" in table


def test_metrics_are_those_of_the_process() -> None:
    assert metrics.ADMISSIONS is not None
    registered = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in REGISTRY.collect()
        if family.name.startswith("autotls_webhook_")
    }
    named = set(re.findall(r"`(autotls_webhook_\w+)", TEXT))
    assert named == registered


def test_environment_of_a_pods_containers_is_documented() -> None:
    section = (DOCS / "architecture.md").read_text().partition("## What a pod gets")[2].partition("## Objects")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `AUTOTLS_")]
    named = [name for row in rows for name in re.findall(r"`(AUTOTLS_\w+)`", row)]
    given = environment(default_settings(MeshConfig(), "optional"), MeshConfig(), redirect=True)
    assert sorted(named) == sorted(variable["name"] for variable in given)
