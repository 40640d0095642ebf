"""The same tables out of a real Prometheus that looked at the same proxies."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from telemetry import promql
from telemetry.edges import edges
from telemetry.flows import Tally
from telemetry.ledger import Traffic
from telemetry.measurement import Measurement
from telemetry.prometheus import Ask, PrometheusMeter, asking
from telemetry.promql import PrometheusError
from telemetry.rows import Kind, table
from telemetry.scrape import Meter
from tests.telemetry.proxies import MeshApi
from tests.telemetry.scenes import Counters, deployment_pod, identity, service_object
from tests.telemetry.scraper import at, instant_of, prometheus

WEB, CLIENT, LATE = "web-5d4f8c7b9-0", "client-5d4f8c7b9-0", "web-5d4f8c7b9-1"
TO_WEB = "shop/deployment/web"


def before() -> dict[str, bytes]:
    client = Counters().outbound(TO_WEB, peer=identity("web"), authority="web", times=100, us=700)
    web_ = Counters().inbound(identity("client"), times=100, us=700).inbound(identity("old"), times=50)
    return {CLIENT: client.text(uptime=1000), WEB: web_.text(uptime=1000)}


def after() -> dict[str, bytes]:
    """More of what was there, series that are new, one that was reset, and a proxy that has started since."""
    client = Counters().outbound(TO_WEB, peer=identity("web"), authority="web", times=130, us=700)
    client.outbound(TO_WEB, peer=identity("web"), authority="web", times=7, us=20_000, code="503")
    client.outbound(TO_WEB, tls=False, reason="tls_failed", authority="web", times=3)
    client.outbound("203.0.113.9:443", tls=False, svc="passthrough", proto="TCP", times=2)
    web_ = (
        Counters()
        .inbound(identity("client"), times=130, us=700)
        .inbound(identity("client"), times=7, us=20_000, code="503")
    )
    web_.inbound(identity("old"), times=4)
    late = Counters().inbound(identity("client"), times=9)
    return {CLIENT: client.text(uptime=1001), WEB: web_.text(uptime=1001), LATE: late.text(uptime=0)}


@asynccontextmanager
async def answering(said: dict[str, bytes]) -> AsyncGenerator[int]:
    """The proxies' /metrics, by pod, on a port of the loopback."""

    async def metrics(request: web.Request) -> web.Response:
        pod = request.match_info["pod"]
        return web.Response(body=said[pod]) if pod in said else web.Response(status=503)

    app = web.Application()
    app.router.add_get("/{pod}", metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def job(port: int, pod: str) -> dict[str, object]:
    labels = {"namespace": "shop", "pod": pod}
    return {
        "job_name": pod,
        "metrics_path": f"/{pod}",
        "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": labels}],
    }


async def looked_at(ask: Ask, now: float) -> dict[str, float]:
    """Pod -> when Prometheus had looked at its proxy last, at that time."""
    body = json.loads(await ask("timestamp(envoy_server_uptime)", f"{now:.3f}"))
    return {each["metric"]["pod"]: float(each["value"][1]) for each in body["data"]["result"]}


def plain(found: Measurement) -> dict[str, object]:
    """Everything that tables are made from, without the clock."""
    shown: dict[str, object] = {}
    for kind in (Kind.DEPLOYMENT, Kind.POD, Kind.NAMESPACE, Kind.SERVICE, Kind.AUTHORITY):
        for row in table(kind, found.book, 1.0).rows:
            shown[f"{kind} {row.name}"] = (row.meshed, row.total, numbers(row.traffic))
    for edge in edges(found.book):
        shown[f"{edge.client.name} {edge.server.name}"] = (
            numbers(edge.traffic),
            edge.server_identities,
            edge.protocols,
        )
    return shown


def numbers(traffic: Traffic) -> tuple[object, ...]:
    total: Tally = traffic.total
    quantiles = [total.latency.quantile(q) for q in (0.5, 0.95, 0.99)]
    counts = (total.requests, total.succeeded, total.connections, total.received, total.sent)
    return (*counts, traffic.tls, dict(traffic.plaintext), dict(traffic.peers), quantiles)


async def test_prometheus_and_the_proxies_give_the_same_tables(tmp_path: Path) -> None:
    api = MeshApi()
    api.seed(
        deployment_pod("web", "10.0.0.2"), deployment_pod("client", "10.0.0.3"), service_object("web", "10.96.0.10")
    )
    said = before()
    async with (
        answering(said) as port,
        prometheus(tmp_path, *(job(port, pod) for pod in (WEB, CLIENT, LATE))) as ask,
    ):

        def knows(query: str, pods: set[str]) -> Callable[[str], object]:
            async def check(now: str) -> bool:
                return promql.pods(await ask(query, now)) == {f"shop/{pod}" for pod in pods}

            return check

        begin = await instant_of(ask, knows(promql.PROXIES, {WEB, CLIENT}), "both proxies")
        said.update(after())
        new = "envoy_server_uptime == 1001 or envoy_server_uptime == 0"
        end = await instant_of(ask, knows(new, {WEB, CLIENT, LATE}), "the later answers of all")
        api.answers = {pod: [before()[pod], after()[pod]] for pod in (WEB, CLIENT)}
        api.answers[LATE] = [after()[LATE]]
        api.after_each_scrape = lambda _pod: api.seed(deployment_pod("web", "10.0.0.4", 1))
        asked = await Meter(api).measure(0.01)
        told = await PrometheusMeter(api, at(ask, end)).measure(end - begin)
        first, last = await looked_at(ask, begin), await looked_at(ask, end)
    shown = plain(asked)
    assert plain(told) == shown
    assert asked.notes == told.notes == ()
    assert first.keys() == {WEB, CLIENT}
    # However late it looked: the time between the looks that were taken.
    assert told.seconds == pytest.approx(sum(last[pod] - first[pod] for pod in first) / 2, abs=0.01)
    web_row = shown["deployment web"]
    assert isinstance(web_row, tuple)
    assert web_row[:2] == (2, 2)
    # 30 more, 7 new ones that failed, 4 of a series that was reset, 9 of the new pod, 3 in plaintext.
    assert web_row[2][:2] == (53, 46)


async def test_proxies_that_prometheus_does_not_know_are_named(tmp_path: Path) -> None:
    api = MeshApi()
    api.seed(deployment_pod("web", "10.0.0.2"))
    async with prometheus(tmp_path) as ask:
        found = await PrometheusMeter(api, ask).measure(60)
    assert found.notes == (f"1 of 1 proxies are not known to Prometheus: shop/{WEB}",)
    assert not found.book.sent(found.cluster.pods).units


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"<html>", "not Prometheus'"),
        (b'{"status":"error","error":"parse error: bad"}', "parse error: bad"),
        (b'{"status":"success","data":{"result":"much"}}', "something else than a vector"),
    ],
)
def test_other_answers_are_errors_that_say_so(body: bytes, told: str) -> None:
    with pytest.raises(PrometheusError, match=told):
        promql.pods(body)


async def test_service_of_the_cluster_is_asked_through_the_api_server() -> None:
    asked: list[tuple[str, object]] = []

    class Api(MeshApi):
        async def request(self, method: str, path: str, **more: object) -> bytes:  # type: ignore[override]
            asked.append((path, more["query"]))
            return b"{}"

    paths = {
        "http://prom.monitoring.svc:9090": "/api/v1/namespaces/monitoring/services/http:prom:9090/proxy/api/v1/query",
        "https://prom.m.svc.cluster.local/x/": "/api/v1/namespaces/m/services/https:prom:443/proxy/x/api/v1/query",
    }
    for url, path in paths.items():
        ask: Ask = asking(Api(), url, None)  # type: ignore[arg-type]
        await ask("up", "12.5")
        assert asked.pop() == (path, [("query", "up"), ("time", "12.5")])
