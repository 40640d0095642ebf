"""What the chart ships for Prometheus and Grafana: only when asked for, and in the words that those understand."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mesh import names, series
from mesh.config import MeshConfig, parse_config
from telemetry import promql
from telemetry.reasons import EVIDENCE
from tests.chart.chart import CHART, HelmError, render, template

EVERYTHING = "--set=prometheus.podMonitor=true,prometheus.rules=true,prometheus.grafanaDashboard=true"
URL = "http://prometheus.monitoring.svc:9090"


def test_nothing_of_it_is_there_unless_it_is_asked_for() -> None:
    kinds = {item["kind"] for item in render().objects}
    assert not kinds & {"PodMonitor", "PrometheusRule"}
    assert not [each for each in render().of("ConfigMap") if "grafana_dashboard" in each["metadata"]["labels"]]


def test_pod_monitor_and_scrape_job_do_the_same() -> None:
    endpoint = render(EVERYTHING).get("PodMonitor", "autotls-proxies")["spec"]["podMetricsEndpoints"][0]
    job = yaml.safe_load((CHART / "files" / "prometheus-scrape.yaml").read_text())

    def plain(rules: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        addresses = [each for each in rules if each.get("target_label", each.get("targetLabel")) == "__address__"]
        return [(each["regex"], each["replacement"]) for each in addresses]

    assert plain(endpoint["relabelings"]) == plain(job["relabel_configs"])
    assert str(names.STATUS_PORT) in endpoint["relabelings"][-1]["replacement"]
    kept = endpoint["metricRelabelings"][0]["regex"]
    assert kept == job["metric_relabel_configs"][0]["regex"]


def test_everything_that_is_asked_for_is_kept() -> None:
    """By the command, the alerts and the dashboard; of Envoy's series under the names that Prometheus shows."""
    job = yaml.safe_load((CHART / "files" / "prometheus-scrape.yaml").read_text())
    kept = re.compile(job["metric_relabel_configs"][0]["regex"])
    shipped = "".join((CHART / "files" / name).read_text() for name in ("rules.yaml", "grafana-dashboard.json"))
    asked = "".join((*promql.increases(60).values(), promql.span(60), promql.TRUNCATED))
    wanted = EVIDENCE | set(re.findall(r"envoy_\w+", shipped + asked))
    assert len(wanted) > len(EVIDENCE) + 5
    assert {name for name in wanted if not kept.fullmatch(name)} == set()


def test_rules_are_those_of_the_file_and_promtool_accepts_them(tmp_path: Path) -> None:
    file = CHART / "files" / "rules.yaml"
    assert render(EVERYTHING).get("PrometheusRule", "autotls")["spec"] == yaml.safe_load(file.read_text())
    _check_rules(file)
    queries = [
        target["expr"].replace("$__rate_interval", "1m").replace("$namespace", ".*")
        for panel in _dashboard()["panels"]
        for target in panel["targets"]
    ]
    rules = [{"record": f"dashboard:query{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "dashboard.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    _check_rules(tmp_path / "dashboard.yaml")


def _check_rules(file: Path) -> None:
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dashboard_asks_for_series_that_exist() -> None:
    text = json.dumps(_dashboard())
    for name in (series.REQUESTS, series.RECEIVED, series.SENT, f"{series.REQUEST_US}_bucket"):
        assert f"{series.EXPOSED}{name}{{" in text
    shipped = json.loads(render(EVERYTHING).get("ConfigMap", "autotls-grafana-dashboard")["data"]["autotls.json"])
    assert shipped == _dashboard()


def _dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CHART / "files" / "grafana-dashboard.json").read_text())
    return found


def test_url_reaches_the_command_by_the_configuration() -> None:
    def configured(*arguments: str) -> MeshConfig:
        return parse_config(render(*arguments).get("ConfigMap", names.CONFIG_MAP)["data"][names.CONFIG_KEY].encode())

    assert configured().prometheus_url == ""
    assert configured(f"--set=prometheus.url={URL}").prometheus_url == URL
    with pytest.raises(HelmError):
        template("--set=prometheus.url=prometheus:9090")


def test_viewer_may_ask_a_prometheus_only_where_there_is_one() -> None:
    def resources(*arguments: str) -> set[str]:
        return {
            each
            for rule in render(*arguments).get("ClusterRole", "autotls-viewer")["rules"]
            for each in rule["resources"]
        }

    assert "services/proxy" not in resources()
    assert "services/proxy" in resources(f"--set=prometheus.url={URL}")
    verbs = {verb for rule in render().get("ClusterRole", "autotls-viewer")["rules"] for verb in rule["verbs"]}
    assert verbs == {"get", "list"}
