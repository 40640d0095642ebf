"""The contract of the series: who counts writes what mesh/series.py says, in discovery and in the bootstrap."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mesh import series

BOOTSTRAP = Path(__file__).resolve().parents[2] / "proxy" / "bootstrap.yaml.in"


@pytest.fixture(scope="module")
def bootstrap() -> dict[str, Any]:
    lines = [line for line in BOOTSTRAP.read_text().splitlines() if not line.startswith("#")]
    return yaml.safe_load(re.sub(r"@[A-Z_]+@", "1", "\n".join(lines)))


def loggers(bootstrap: dict[str, Any], listener: str, chain: str) -> list[dict[str, Any]]:
    (found,) = (entry for entry in bootstrap["static_resources"]["listeners"] if entry["name"] == listener)
    (filters,) = (entry["filters"] for entry in found["filter_chains"] if entry["name"] == chain)
    configs = [entry["typed_config"] for entry in filters[-1]["typed_config"]["access_log"]]
    return [config for config in configs if config["@type"].endswith("access_loggers.stats.v3.Config")]


def labels(config: dict[str, Any]) -> dict[str, set[str]]:
    stats = [entry["stat"] for kind in ("counters", "histograms") for entry in config.get(kind, ())]
    return {stat["name"]: {tag["name"] for tag in stat["tags"]} for stat in stats}


@pytest.mark.parametrize(
    ("listener", "chain", "table"),
    [
        ("outbound_v4", "plain", series.OUTBOUND_PASSTHROUGH),
        ("inbound_plain_v4", "plain", series.INBOUND_PLAINTEXT),
        ("inbound_mtls_v4", "http", series.INBOUND_HTTP),
        ("inbound_mtls_v4", "tcp", series.INBOUND_TCP),
    ],
)
def test_the_bootstrap_counts_what_the_contract_says(
    bootstrap: dict[str, Any], listener: str, chain: str, table: dict[str, tuple[str, ...]]
) -> None:
    (config,) = loggers(bootstrap, listener, chain)
    assert labels(config) == {name: set(names) for name, names in table.items()}


def test_each_scope_has_the_limits_of_the_contract(bootstrap: dict[str, Any]) -> None:
    seen: set[str] = set()
    for listener, chain in (
        ("outbound_v4", "plain"),
        ("inbound_plain_v4", "plain"),
        ("inbound_mtls_v4", "http"),
        ("inbound_mtls_v4", "tcp"),
    ):
        (config,) = loggers(bootstrap, listener, chain)
        scope = config["stats_scope"]
        limit = series.LIMITS[scope["sharing_name"]]
        assert (scope["max_counters"], scope.get("max_histograms", 0)) == (limit.counters, limit.histograms)
        assert scope["prefix"] == series.SCOPE
        assert "histograms" not in config or limit.histograms
        seen.add(scope["sharing_name"])
    assert seen == series.LIMITS.keys() - {"authority"}  # which only discovery's listeners have
