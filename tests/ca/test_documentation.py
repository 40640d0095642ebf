"""docs/architecture.md names metrics of the CA that there are."""

import re
from pathlib import Path

from prometheus_client import REGISTRY

from ca import metrics
from kube import metrics as kube_metrics

TEXT = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()


def test_metrics_that_the_document_names_exist() -> None:
    assert metrics.HELD is not kube_metrics.LEADER  # both register what they have
    registered = {family.name + ("_total" if family.type == "counter" else "") for family in REGISTRY.collect()}
    named = set(re.findall(r"`(autotls_(?:ca|identity|kube)_\w+)", TEXT))
    assert len(named) > 10
    assert named <= registered
