"""Events about pods: said once, about new pods only, and not about what everybody knows."""

from typing import Any

import pytest

from mesh import names
from tests.ca.harness import Cluster, a_pod, settle, virtual

ENABLED = {names.INJECT_LABEL: "enabled"}


def fresh(**pod: Any) -> dict[str, Any]:
    """A pod that is created now; the API in memory dates everything else to the first of January."""
    return a_pod("shop", "pod", **pod)


async def told(pod: dict[str, Any]) -> list[tuple[str, str, str]]:
    cluster = Cluster()
    cluster.opted_in("shop")
    async with cluster.leading():
        cluster.api.seed(pod)
        await settle(2)
        cluster.api.seed({**pod, "status": {"phase": "Pending"}})
        await settle(2)
    return [(event["reason"], event["type"], event["note"]) for event in cluster.api.listed("events", "shop")]


@pytest.fixture(autouse=True)
def created_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fakes.kubeapi.CREATED", "2026-03-01T12:00:00Z")


@virtual
async def test_an_injected_pod_is_told_once() -> None:
    events = await told(fresh(sidecar=True))
    assert [(reason, kind) for reason, kind, _ in events] == [("Injected", "Normal")]


@virtual
async def test_a_skipped_pod_is_told_with_the_webhooks_own_reason() -> None:
    events = await told(fresh(host_network=True))
    assert [(reason, kind) for reason, kind, _ in events] == [("Skipped", "Warning")]
    assert "(host_network)" in events[0][2]


@virtual
async def test_a_pod_that_should_have_been_injected_is_told_what_to_do() -> None:
    events = await told(fresh())
    assert [reason for reason, _, _ in events] == ["NotInjected"]
    assert "Restart" in events[0][2]


@virtual
async def test_a_pod_that_opted_out_hears_nothing() -> None:
    assert await told(fresh(labels={names.INJECT_LABEL: "disabled"})) == []


@virtual
async def test_a_start_with_many_old_pods_says_nothing() -> None:
    cluster = Cluster()
    cluster.opted_in("shop")
    for number in range(50):
        cluster.pod("shop", f"pod-{number}")
    await settle(3600)
    async with cluster.leading():
        await settle(60)
    assert cluster.api.listed("events", "shop") == []
