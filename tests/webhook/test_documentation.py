"""docs/webhook.md names what there is, and only that."""

import re
from pathlib import Path

from prometheus_client import REGISTRY

from webhook import metrics
from webhook.decision import NO_REDIRECT, SkipReason

TEXT = (Path(__file__).parents[2] / "docs" / "webhook.md").read_text()


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
