"""The process: ready when it can answer, and gone without losing a review."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bench.certificates import write_serving_pair
from cluster.apiserver import ApiServer
from tests.fixtures.admission.goldens import VERSIONS, review_path
from tests.webhook.process import running_webhook, wait_until

REVIEW = review_path(VERSIONS[-1], "bare-pod").read_bytes()


@pytest.mark.apiserver
def test_process_serves_while_it_drains_and_ends_with_zero(apiserver: ApiServer, tmp_path: Path) -> None:
    with running_webhook(tmp_path, apiserver.kubeconfig, shutdown_s=600) as webhook:
        wait_until(lambda: webhook.health("/readyz") == (200, "ok\n"), "ready")
        connection = webhook.connect()
        answer, closing = webhook.mutate(REVIEW, connection)
        assert b'"patch"' in answer
        assert not closing
        status, text = webhook.health("/metrics")
        assert status == 200
        for metric in (
            'autotls_webhook_admissions_total{reason="no_redirect",result="injected"} 1.0',
            "autotls_webhook_certificate_not_after_timestamp_seconds 1",
            "autotls_webhook_admission_seconds_bucket",
        ):
            assert metric in text
        webhook.process.terminate()
        wait_until(lambda: webhook.health("/readyz") == (503, "not ready: stopping\n"), "not ready any more")
        # On the connection that is open already, which no removed endpoint would end.
        answer, closing = webhook.mutate(REVIEW, connection)
        assert b'"patch"' in answer
        assert closing
        # The second signal cuts the ten minutes short.
        assert webhook.stop() == 0
    events = [json.loads(line)["event"] for line in webhook.log.splitlines()]
    assert events.count("pod_injected") == 2
    assert "stopping" in events


@pytest.mark.apiserver
def test_process_takes_up_a_new_certificate(apiserver: ApiServer, tmp_path: Path) -> None:
    with running_webhook(tmp_path, apiserver.kubeconfig) as webhook:
        wait_until(lambda: webhook.health("/readyz")[0] == 200, "ready")
        trust = write_serving_pair(tmp_path, common_name="renewed")
        renewed = type(webhook)(webhook.process, webhook.folder, webhook.port, webhook.health_port, trust)

        def served() -> bool:
            try:
                return b'"patch"' in renewed.mutate(REVIEW)[0]
            except OSError:
                return False

        wait_until(served, "the new certificate served")


def unreachable_cluster(folder: Path) -> Path:
    """A kubeconfig for an API server that is not there."""
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "x",
                "clusters": [{"name": "x", "cluster": {"server": "https://127.0.0.1:1"}}],
                "users": [{"name": "x", "user": {"token": "x"}}],
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
            }
        )
    )
    return kubeconfig


def run_to_the_end(folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The process, which has to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "webhook"],
        env={**os.environ, "AUTOTLS_CONFIG": str(folder / "config.yaml"), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def test_process_without_an_api_server_lives_and_is_not_ready(tmp_path: Path) -> None:
    with running_webhook(tmp_path, unreachable_cluster(tmp_path)) as webhook:
        # All the rest is there, its port among it.
        wait_until(lambda: webhook.health("/readyz") == (503, "not ready: namespaces\n"), "the port open")
        # It answers all the same: on the safe side, for nothing is known of the namespace.
        assert b'"patch"' in webhook.mutate(REVIEW)[0]
        assert webhook.stop() == 0


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("mode: strikt", "mode"),
        ("proxy: {resources: {cpuRequest: much}}", "proxy.resources.cpuRequest"),
        ("proxy: {skipInboundPorts: ['http']}", "proxy.skipInboundPorts"),
    ],
)
def test_configuration_that_cannot_work_ends_the_process_with_two(tmp_path: Path, config: str, words: str) -> None:
    (tmp_path / "config.yaml").write_text(config)
    done = run_to_the_end(tmp_path)
    assert done.returncode == 2
    (line,) = done.stdout.splitlines()
    assert words in json.loads(line)["error"]


def test_port_that_is_taken_ends_the_process_with_three(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}")
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        done = run_to_the_end(
            tmp_path,
            KUBECONFIG=str(unreachable_cluster(tmp_path)),
            AUTOTLS_WEBHOOK_TLS=str(tmp_path),
            AUTOTLS_WEBHOOK_PORT="0",
            AUTOTLS_HEALTH_PORT=str(taken.getsockname()[1]),
        )
    assert done.returncode == 3
    assert "address already in use" in done.stdout + done.stderr
