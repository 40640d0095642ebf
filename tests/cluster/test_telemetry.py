"""The truth test of `stat` and `edges`: what clients counted themselves, against what the tables say."""

import asyncio
import json
import subprocess
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from cli.tables import stat
from cluster.ports import reserved
from telemetry import promql
from telemetry.edges import edges
from telemetry.ledger import Traffic
from telemetry.measurement import Measurement
from telemetry.prometheus import Ask, PrometheusMeter
from telemetry.rows import Kind, Selection, table
from tests.cluster.kubectl import OPTED_IN, eventually, run_autotls, run_kubectl, space
from tests.cluster.scraping import (
    Access,
    Job,
    claimants,
    pod_monitor_job,
    program,
    reading_pods,
    scrape_job,
    targets_of,
)
from tests.cluster.truth import Scene, bucket, metered, row, scene, sent, settled
from tests.fixtures_cluster import RunningCluster
from tests.telemetry.scraper import at, instant_of, prometheus

pytestmark = pytest.mark.cluster

PAUSE_MS: Final = 120
OTHERS: Final = {"db": Kind.STATEFULSET, "agent": Kind.DAEMONSET, "import": Kind.JOB, "nightly": Kind.CRONJOB}
VIEWER: Final = "autotls-viewer"
QUIET_S: Final = 8.0


@pytest.fixture(scope="module")
def truth(cluster: RunningCluster) -> Iterator[Scene]:
    with scene(cluster) as made:
        yield made


def traffic(found: Measurement, kind: Kind, truth: Scene, name: str) -> Traffic:
    return row(found, kind, truth.home.name, name).traffic


async def test_counts_shares_and_latencies_are_those_that_the_client_saw(cluster: RunningCluster, truth: Scene) -> None:
    async with metered(cluster, truth.home) as window:
        answers = await truth.load("web", f"/200/{PAUSE_MS}", 40) + await truth.load("web", f"/503/{PAUSE_MS}", 10)
        dead = await truth.load("db", "/200/0", 3, port=81, keep=False)
        found = await window.until(
            lambda found: (
                sent(found, truth.home.name) == 53
                and traffic(found, Kind.DEPLOYMENT, truth, "web").total.latency.total == 50
                and traffic(found, Kind.SERVICE, truth, "web").total.latency.total == 50
                and traffic(found, Kind.STATEFULSET, truth, "db").total.requests == 3
            )
        )
    assert [status for status, _ in dead] == [503] * 3
    for kind, name in ((Kind.DEPLOYMENT, "web"), (Kind.SERVICE, "web")):
        seen = traffic(found, kind, truth, name)
        assert (seen.total.requests, seen.total.succeeded) == (50, 40)
        assert (seen.tls, dict(seen.plaintext)) == (50, {})
        # The server's pause bounds it from below, and what the client measured from above.
        for q in (0.5, 0.95, 0.99):
            true_us = sorted(ms for _, ms in answers)[max(0, int(q * 50) - 1)] * 1000
            bounds = seen.total.latency.bounds
            value = seen.total.latency.quantile(q)
            assert value is not None
            assert bucket(bounds, PAUSE_MS * 1000)[0] <= value <= bucket(bounds, true_us)[1]
    assert row(found, Kind.DEPLOYMENT, truth.home.name, "web").unseen
    assert (
        traffic(found, Kind.STATEFULSET, truth, "db").total.succeeded,
        traffic(found, Kind.STATEFULSET, truth, "db").tls,
    ) == (0, 3)
    authorities = traffic(found, Kind.AUTHORITY, truth, f"web.{truth.home.name}.svc.cluster.local")
    assert (authorities.total.requests, authorities.tls) == (50, 50)
    assert traffic(found, Kind.NAMESPACE, truth, truth.home.name).total.requests == 53


async def test_plaintext_is_counted_where_it_can_be_seen_and_the_rest_is_marked(
    cluster: RunningCluster, truth: Scene
) -> None:
    await settled(cluster, truth)
    async with metered(cluster, truth.home) as window:
        await truth.load("seen", "/200/0", 7, client=truth.outside, where=truth.home, keep=False)
        await truth.load("seen", "/200/0", 5)
        await truth.load("web", "/200/0", 4, client=truth.outside, where=truth.home, keep=False)
        await truth.load("web", "/200/0", 6, where=truth.outside, keep=False)
        found = await window.until(
            lambda found: (
                sent(found, truth.home.name) == 11
                and traffic(found, Kind.DEPLOYMENT, truth, "seen").units == 12
                and traffic(found, Kind.DEPLOYMENT, truth, "seen").probes > 0
            )
        )
    seen = traffic(found, Kind.DEPLOYMENT, truth, "seen")
    stranger = f"{truth.outside.name}/pod/client"
    assert (seen.tls, seen.total.connections, dict(seen.plaintext)) == (5, 7, {"not_meshed": 7})
    assert dict(seen.peers) == {stranger: 7}
    assert not row(found, Kind.DEPLOYMENT, truth.home.name, "seen").unseen
    # What a client without a proxy sends to a `direct` server nobody counts: no number, and a mark.
    web = row(found, Kind.DEPLOYMENT, truth.home.name, "web")
    assert (web.traffic.units, web.unseen) == (0, True)
    outside = row(found, Kind.DEPLOYMENT, truth.outside.name, "web")
    assert (outside.meshed, outside.total, dict(outside.traffic.plaintext)) == (0, 1, {"not_meshed": 6})
    pairs = {(edge.client.name, edge.server.name): edge for edge in edges(found.book, Kind.DEPLOYMENT, truth.home.name)}
    home = truth.home.name
    by_tls, plain = pairs[f"{home}/pod/client", f"{home}/deployment/seen"], pairs[stranger, f"{home}/deployment/seen"]
    identity = f"spiffe://cluster.local/ns/{home}/sa/default"
    assert (by_tls.client_identities, by_tls.server_identities) == ({identity}, {identity})
    assert (by_tls.traffic.tls, plain.traffic.units, dict(plain.traffic.plaintext)) == (5, 7, {"not_meshed": 7})


async def test_every_kind_of_workload_has_its_row(cluster: RunningCluster, truth: Scene) -> None:
    await settled(cluster, truth)
    async with metered(cluster, truth.home) as window:
        for service in OTHERS:
            await truth.load(service, "/200/0", 2)
        found = await window.until(
            lambda found: all(traffic(found, kind, truth, name).total.requests == 2 for name, kind in OTHERS.items())
        )
    for name, kind in OTHERS.items():
        shown = row(found, kind, truth.home.name, name)
        assert (shown.meshed, shown.total, shown.traffic.tls_share) == (1, 1, 1)
        pods = {
            pod.name for pod in found.cluster.pods if pod.namespace == truth.home.name and pod.labels.get("app") == name
        }
        assert [traffic(found, Kind.POD, truth, pod).total.requests for pod in pods] == [2]


@pytest.mark.parametrize("job_of", [scrape_job, pod_monitor_job], ids=["scrape job", "PodMonitor"])
async def test_prometheus_finds_every_proxy_and_tells_the_same(
    cluster: RunningCluster, truth: Scene, tmp_path: Path, job_of: Callable[[Access], Job]
) -> None:
    await settled(cluster, truth)
    with claiming(truth), reading_pods(truth.home, tmp_path) as access, reserved() as port:
        async with (
            metered(cluster, truth.home) as window,
            prometheus(tmp_path, job_of(access), enter=cluster.enter_network, program=program(), port=port) as ask,
        ):
            begin = await instant_of(ask, lambda now: finds_all(cluster, ask, now), "every proxy and nothing else")
            # The command's own window begins as much later as it takes to start.
            await instant_of(ask, lambda now: at_least(begin + QUIET_S, now), "some seconds without traffic")
            await truth.load("web", "/200/20", 30)
            await truth.load("web", "/503/0", 10)
            await truth.load("web", "/200/0", 5, where=truth.outside, keep=False)

            def complete(found: Measurement) -> bool:
                web = traffic(found, Kind.DEPLOYMENT, truth, "web")
                return web.total.latency.total == 40 and sent(found, truth.home.name) == 45

            asked = await window.until(complete)

            async def told_all(now: str) -> bool:
                meter = PrometheusMeter(window.meter.api, at(ask, float(now)))
                return complete(await meter.measure(float(now) - begin))

            end = await instant_of(ask, told_all, "all that was sent")
            told = await PrometheusMeter(window.meter.api, at(ask, end)).measure(end - begin)
            await instant_of(ask, lambda now: command_tells(cluster, truth, port, float(now) - begin, asked), "by stat")
    for kind, name in ((Kind.DEPLOYMENT, "web"), (Kind.SERVICE, "web"), (Kind.POD, "client")):
        ours, theirs = (traffic(found, kind, truth, name) for found in (asked, told))
        assert (theirs.total.requests, theirs.total.succeeded) == (ours.total.requests, ours.total.succeeded)
        assert (theirs.tls, dict(theirs.plaintext)) == (ours.tls, dict(ours.plaintext))
        for q in (0.5, 0.95, 0.99):
            assert theirs.total.latency.quantile(q) == ours.total.latency.quantile(q)


@contextmanager
def claiming(truth: Scene) -> Generator[None]:
    """Pods that Prometheus must leave alone run, or have run."""
    with space(truth.home.cluster, "claimants", labels=OPTED_IN) as where:
        where.apply(*claimants(where.cluster))
        where.wait_ready("forged")
        eventually(lambda: where.get("pod", "ended")["status"]["phase"] == "Succeeded", "the pod to end")
        yield


async def finds_all(cluster: RunningCluster, ask: Ask, now: str) -> bool:
    """It scrapes the proxies, each successfully and under the names of its pod, and nothing else."""
    found = json.loads(await ask("up", now))["data"]["result"]
    scraped = {(each["metric"]["namespace"], each["metric"]["pod"], each["metric"]["instance"]) for each in found}
    answered = all(each["value"][1] == "1" for each in found)
    explained = promql.pods(await ask("envoy_listener_manager_lds_update_success > 0", now))
    return (
        answered
        and len(scraped) == len(found)
        and scraped == targets_of(cluster.get("pods", "--all-namespaces")["items"])
        and {f"{namespace}/{pod}" for namespace, pod, _ in scraped} == explained
    )


async def at_least(instant: float, now: str) -> bool:
    return float(now) >= instant


async def command_tells(cluster: RunningCluster, truth: Scene, port: int, window_s: float, asked: Measurement) -> bool:
    """`autotls stat --prometheus-url` writes the rows that the proxies themselves gave."""
    argv = [*cluster.enter_network, cluster.folder.bin / "autotls", "stat", f"--kubeconfig={cluster.kubeconfig}"]
    argv += [f"--prometheus-url=http://127.0.0.1:{port}", f"--namespace={truth.home.name}", "--output=json"]
    done = await asyncio.to_thread(
        subprocess.run, [*argv, f"-t{window_s:.0f}s"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    selection = Selection(truth.home.name)
    ours = json.loads(stat.as_json(table(Kind.DEPLOYMENT, asked.book, asked.seconds, selection), ()))
    exact = ("name", "meshed", "pods", "success", "tls", "requests", "connections", "plaintext", "latency_ms")

    def rows(found: Any) -> list[list[Any]]:
        return [[each[key] for key in exact] for each in found["rows"]]

    return rows(json.loads(done.stdout)) == rows(ours)


async def test_viewer_sees_the_table_and_nothing_is_missing(
    cluster: RunningCluster, truth: Scene, tmp_path: Path
) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "viewer"}}
    binding = f"{truth.home.name}-viewer"
    truth.home.apply(account)
    subject = f"--serviceaccount={truth.home.name}:viewer"
    cluster.kubectl("create", "clusterrolebinding", binding, f"--clusterrole={VIEWER}", subject)
    try:
        config = yaml.safe_load(cluster.kubeconfig.read_text())
        config["users"] = [
            {"name": "viewer", "user": {"token": truth.home.kubectl("create", "token", "viewer").strip()}}
        ]
        config["contexts"][0]["context"]["user"] = "viewer"
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
        flags = (f"--kubeconfig={tmp_path}/kubeconfig", f"--namespace={truth.home.name}", "--time-window=1s")
        last: list[object] = []

        def whole() -> bool:
            """What is granted takes a moment, and a busy proxy may miss its time, which is a note."""
            done = run_autotls(cluster, "stat", "deploy", "--output=json", *flags)
            last[:] = [done.stderr, done.stdout]
            if done.returncode:
                return False
            found = json.loads(done.stdout)
            return [each["name"] for each in found["rows"]] == ["seen", "web"] and found["notes"] == []

        eventually(whole, lambda: f"the whole table without a note: {last}")
        assert run_autotls(cluster, "edges", *flags).returncode == 0
        refused = run_kubectl(cluster, f"--kubeconfig={tmp_path}/kubeconfig", "get", "secrets", "--all-namespaces")
        assert "forbidden" in refused.stderr
    finally:
        cluster.kubectl("delete", "clusterrolebinding", binding)
