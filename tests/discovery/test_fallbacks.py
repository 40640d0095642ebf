"""Which meshed peers reached in plaintext are said aloud, and how often."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from prometheus_client import REGISTRY

from discovery import fallbacks
from discovery.accesslog import Record
from discovery.alarms import REASON, Alarms
from discovery.fallbacks import AGAIN_S, MAX_FAILURE, REST_S, Fallback, Fallbacks
from discovery.snapshot import PodFacts
from tests.discovery import records
from tests.discovery.cluster import Mesh
from tests.discovery.objects import pod
from tests.fakes.kubeapi import FakeApi

RECORD = dataclasses.replace(
    records.RECORD,
    source="10.0.0.9:40000",
    upstream="10.0.0.1:8080",
    tls="",
    peer="",
    reason="tls_failed",
    authority="web",
)


class Scene:
    """A client, two replicas of a meshed server, a pod without a sidecar; time moves when told."""

    def __init__(self) -> None:
        self.mesh = Mesh()
        self.mesh.put(
            pod("client", "10.0.0.9"), pod("web-0", "10.0.0.1"), pod("db-0", "10.0.0.2", "fd00::2"),
            pod("plain", "10.0.0.3", meshed=False),
        )  # fmt: skip
        self.said: list[Fallback] = []
        self.now = 1000.0
        self.fallbacks = Fallbacks(self.mesh.world, self.said.append, lambda: self.now)

    @property
    def client(self) -> PodFacts:
        found = self.mesh.world.pod("shop/client")
        assert found
        return found

    def tell(self, *told: Record) -> list[str]:
        """The servers that it made said."""
        before = len(self.said)
        self.fallbacks.take(self.client, told)
        return [each.server for each in self.said[before:]]


def test_a_pair_is_said_once_and_again_after_ten_minutes() -> None:
    scene = Scene()
    assert scene.tell(RECORD, RECORD) == ["shop/pod/web-0"]
    scene.now += AGAIN_S - 1
    assert scene.tell(RECORD) == []
    scene.now += 1
    assert scene.tell(RECORD) == ["shop/pod/web-0"]


def test_each_server_is_a_pair_of_its_own() -> None:
    scene = Scene()
    other = dataclasses.replace(RECORD, upstream="[fd00::2]:5432")
    assert scene.tell(RECORD, other) == ["shop/pod/web-0", "shop/pod/db-0"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"reason": "not_meshed"}, id="another reason"),
        pytest.param({"reason": ""}, id="no reason"),
        pytest.param({"tls": "TLSv1.2"}, id="TLS"),
        pytest.param({"outbound": False}, id="inbound"),
        pytest.param({"upstream": "10.0.0.3:8080"}, id="a pod without a sidecar"),
        pytest.param({"upstream": "192.0.2.1:8080"}, id="nobody's address"),
        pytest.param({"upstream": ""}, id="no address"),
    ],
)
def test_nothing_else_is_said(change: dict[str, object]) -> None:
    assert Scene().tell(dataclasses.replace(RECORD, **change)) == []


def test_a_pod_that_was_heard_is_not_read_for_a_while() -> None:
    scene = Scene()
    assert scene.fallbacks.wants(scene.client)
    scene.tell(RECORD)
    assert not scene.fallbacks.wants(scene.client)
    scene.now += REST_S
    assert scene.fallbacks.wants(scene.client)


def test_a_pair_goes_on_until_it_was_not_seen_for_ten_minutes() -> None:
    scene = Scene()
    scene.tell(RECORD)
    scene.now += AGAIN_S - 1
    scene.tell(RECORD)
    scene.now += AGAIN_S - 1
    assert set(scene.fallbacks.going_on()) == {("shop/pod/client", "shop/pod/web-0")}
    scene.now += 1
    assert set(scene.fallbacks.going_on()) == set()


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fallbacks, "MAX_PAIRS", 1)
    scene = Scene()
    assert scene.tell(RECORD, dataclasses.replace(RECORD, upstream="10.0.0.2:5432")) == ["shop/pod/web-0"]


@pytest.mark.parametrize(
    ("failure", "shown"),
    [
        ("TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify:TLS_error_end",
         " (CERTIFICATE_VERIFY_FAILED:verify)"),
        ("delayed connect error: Connection refused", " (delayed connect error: Connection refused)"),
        ("a\n\x1b[31mb", " (a??[31mb)"),
        ("x" * 5000, f" ({'x' * MAX_FAILURE})"),
        ("", ""),
    ],
)  # fmt: skip
def test_the_message_names_peer_cause_and_remedy(failure: str, shown: str) -> None:
    scene = Scene()
    scene.tell(dataclasses.replace(RECORD, failure=failure))
    message = scene.said[0].message
    assert message.startswith("Plaintext to shop/pod/web-0, which has a sidecar")
    assert f"mutual TLS failed{shown} and" in message
    assert "autotls check" in message


async def test_the_clients_pod_gets_an_event_and_the_metric_lasts_as_long_as_it_goes_on() -> None:
    scene, api = Scene(), FakeApi()
    alarms = Alarms(api, scene.mesh.world, instance="discovery-0", clock=lambda: scene.now)
    running = asyncio.create_task(alarms.run())
    written = asyncio.Event()

    async def before(*_: object) -> None:
        asyncio.get_running_loop().call_soon(written.set)

    api.faults.before = before

    def pairs() -> float | None:
        labels = {"client": "shop/pod/client", "server": "shop/pod/web-0"}
        return REGISTRY.get_sample_value("autotls_discovery_plaintext_to_meshed", labels)

    try:
        alarms.consumer.take(scene.client, [RECORD])
        async with asyncio.timeout(60):
            await written.wait()
    finally:
        running.cancel()
    (event,) = api.listed("events", "shop")
    assert (event["type"], event["reason"]) == ("Warning", REASON)
    assert (event["regarding"]["kind"], event["regarding"]["name"]) == ("Pod", "client")
    assert event["regarding"]["uid"] == scene.client.uid
    assert "shop/pod/web-0" in event["note"]
    assert pairs() == 1
    scene.now += AGAIN_S
    alarms.measure()
    assert pairs() is None
