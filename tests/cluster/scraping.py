"""What the chart ships for Prometheus as jobs of a Prometheus that is not a pod: it is told where the API server is."""

import base64
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from cluster import binaries, recipes
from cluster.layout import Cache
from mesh import names
from tests.chart.chart import CHART, render
from tests.cluster.kubectl import Object, Space
from tests.fixtures_cluster import RunningCluster

Job = dict[str, Any]
# What Prometheus' documentation asks for its discovery of pods.
_RULES: Final = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]


def program() -> Path:
    """A Prometheus that can discover pods, built once."""
    return binaries.ensure(Cache.from_environment(), recipes.prometheus()) / "prometheus"


@dataclass(frozen=True, slots=True)
class Access:
    """To the API server, as a ServiceAccount that may read pods and nothing else."""

    server: str
    authority: Path
    token: Path

    def discovery(self, config: Mapping[str, Any]) -> Job:
        return {
            **config,
            "api_server": self.server,
            "authorization": {"credentials_file": str(self.token)},
            "tls_config": {"ca_file": str(self.authority)},
        }


@contextmanager
def reading_pods(home: Space, folder: Path) -> Generator[Access]:
    name = f"{home.name}-prometheus"
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "prometheus"}}
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}}
    home.apply(account, {**role, "rules": _RULES})
    subject = f"--serviceaccount={home.name}:prometheus"
    home.cluster.kubectl("create", "clusterrolebinding", name, f"--clusterrole={name}", subject)
    try:
        kubeconfig = yaml.safe_load(home.cluster.kubeconfig.read_text())["clusters"][0]["cluster"]
        found = Access(kubeconfig["server"], folder / "ca.crt", folder / "token")
        found.authority.write_bytes(base64.b64decode(kubeconfig["certificate-authority-data"]))
        found.token.write_text(home.kubectl("create", "token", "prometheus").strip())
        yield found
    finally:
        home.cluster.kubectl("delete", "clusterrolebinding,clusterrole", name)


def scrape_job(access: Access) -> Job:
    """The chart's file."""
    shipped: Job = yaml.safe_load((CHART / "files" / "prometheus-scrape.yaml").read_text())
    return {**shipped, "kubernetes_sd_configs": [access.discovery(each) for each in shipped["kubernetes_sd_configs"]]}


def pod_monitor_job(access: Access) -> Job:
    """The chart's PodMonitor, as the Prometheus operator turns one without ports into a job.

    Source: prometheus-operator, pkg/prometheus/promcfg.go, generatePodMonitorConfig.
    """
    monitor = render("--set=prometheus.podMonitor=true").get("PodMonitor", "autotls-proxies")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert monitor["spec"]["namespaceSelector"] == {"any": True}
    rules: list[Job] = [
        {"source_labels": ["__meta_kubernetes_pod_phase"], "regex": "(Failed|Succeeded)", "action": "drop"},
        *(_selected(each) for each in monitor["spec"]["selector"]["matchExpressions"]),
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
        {"source_labels": ["__meta_kubernetes_pod_container_name"], "target_label": "container"},
        {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
        {"target_label": "job", "replacement": "{namespace}/{name}".format(**monitor["metadata"])},
    ]
    return {
        "job_name": "podMonitor",
        "metrics_path": endpoint["path"],
        "kubernetes_sd_configs": [access.discovery({"role": "pod"})],
        "relabel_configs": [*rules, *map(_rule, endpoint["relabelings"])],
        "metric_relabel_configs": [*map(_rule, endpoint["metricRelabelings"])],
    }


def _selected(expression: Job) -> Job:
    assert expression["operator"] == "Exists"
    label = re.sub(r"\W", "_", expression["key"])
    return {"source_labels": [f"__meta_kubernetes_pod_labelpresent_{label}"], "regex": "true", "action": "keep"}


def _rule(rule: Job) -> Job:
    """The operator writes the same in camel case."""
    return {re.sub(r"[A-Z]", lambda upper: f"_{upper[0].lower()}", key): value for key, value in rule.items()}


def targets_of(pods: Sequence[Object]) -> set[tuple[str, str, str]]:
    """Namespace, name and scraped address of every pod that has a sidecar and has not ended."""
    return {
        (pod["metadata"]["namespace"], pod["metadata"]["name"], f"{pod['status']['podIP']}:{names.STATUS_PORT}")
        for pod in pods
        if names.MESH_LABEL in pod["metadata"].get("labels", {})
        and pod["status"].get("podIP")
        and pod["status"]["phase"] not in ("Succeeded", "Failed")
        and any(each["name"] == names.PROXY_CONTAINER for each in pod["spec"].get("initContainers", ()))
    }


def claimants(cluster: RunningCluster) -> tuple[Object, ...]:
    """Pods that look as if they had a sidecar that runs: one has ended, the other has the label and no sidecar."""
    container = {"name": "app", "image": cluster.image("testbox"), "command": ["sleep", "infinity"]}
    base: Object = {"terminationGracePeriodSeconds": 1, "restartPolicy": "Never"}
    forged = {names.MESH_LABEL: "autotls", names.INJECT_LABEL: names.INJECT_DISABLED}
    return (
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "ended"},
            "spec": {**base, "containers": [{**container, "command": ["true"]}]},
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "forged", "labels": forged},
            "spec": {**base, "containers": [container]},
        },
    )
