"""Events: said once, counted after, never in the caller's way."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from prometheus_client import REGISTRY

from kube import errors
from kube.events import BURST, MAX_WAITING, Recorder, Regarding
from tests.fakes.clock import now, run_virtual
from tests.fakes.kubeapi import FakeApi

ACCOUNT = Regarding("v1", "ServiceAccount", "web", "shop", "uid-1")


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("autotls_kube_events_total", {"outcome": outcome}) or 0.0


def play(scene: Callable[[FakeApi, Recorder], Awaitable[None]]) -> None:
    async def main() -> None:
        api = FakeApi()
        recorder = Recorder(api, "autotls.io/ca", instance="ca-0", clock=now)
        task = asyncio.create_task(recorder.run())
        await scene(api, recorder)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    run_virtual(main())


def events(api: FakeApi) -> list[dict[str, Any]]:
    return api.listed("events")


def test_an_event_says_who_about_what_and_why() -> None:
    async def scene(api: FakeApi, recorder: Recorder) -> None:
        recorder.emit(ACCOUNT, "ForeignSecret", "Secret autotls-identity-web is not ours", "Warning", "Issue")
        await asyncio.sleep(1)
        (event,) = events(api)
        assert event["metadata"]["namespace"] == "shop"
        assert event["metadata"]["name"].startswith("web.")
        assert event["regarding"] == {
            "apiVersion": "v1", "kind": "ServiceAccount", "name": "web", "namespace": "shop", "uid": "uid-1",
        }  # fmt: skip
        said = ("Warning", "ForeignSecret", "Issue", "Secret autotls-identity-web is not ours")
        assert (event["type"], event["reason"], event["action"], event["note"]) == said
        assert (event["reportingController"], event["reportingInstance"]) == ("autotls.io/ca", "ca-0")
        assert "series" not in event

    play(scene)


def test_the_same_again_is_counted_and_written_at_most_once_a_minute() -> None:
    async def scene(api: FakeApi, recorder: Recorder) -> None:
        for _ in range(180):
            recorder.emit(ACCOUNT, "ForeignSecret", "not ours", "Warning")
            await asyncio.sleep(1)
        await asyncio.sleep(60)
        (event,) = events(api)
        assert event["series"]["count"] == 180
        assert len(api.requests) <= 5

    play(scene)


def test_a_restarted_process_counts_on_instead_of_saying_it_again() -> None:
    async def scene(api: FakeApi, recorder: Recorder) -> None:
        recorder.emit(ACCOUNT, "ForeignSecret", "not ours", "Warning")
        await asyncio.sleep(1)
        restarted = Recorder(api, "autotls.io/ca", instance="ca-1", clock=now)
        restarted.emit(ACCOUNT, "ForeignSecret", "not ours", "Warning")
        task = asyncio.create_task(restarted.run())
        await asyncio.sleep(1)
        task.cancel()
        (event,) = events(api)
        assert event["series"]["count"] == 2
        assert event["reportingInstance"] == "ca-0"

    play(scene)


def test_an_event_that_expired_meanwhile_is_said_again() -> None:
    async def scene(api: FakeApi, recorder: Recorder) -> None:
        recorder.emit(ACCOUNT, "ForeignSecret", "not ours", "Warning")
        await asyncio.sleep(3600)
        (event,) = events(api)
        api.remove(f"/apis/events.k8s.io/v1/namespaces/shop/events/{event['metadata']['name']}")
        recorder.emit(ACCOUNT, "ForeignSecret", "not ours", "Warning")
        await asyncio.sleep(1)
        assert len(events(api)) == 1

    play(scene)


def test_another_message_or_object_is_another_event() -> None:
    async def scene(api: FakeApi, recorder: Recorder) -> None:
        recorder.emit(ACCOUNT, "Skipped", "host network")
        recorder.emit(ACCOUNT, "Skipped", "opted out")
        recorder.emit(Regarding("v1", "ServiceAccount", "web", "shop", "uid-2"), "Skipped", "opted out")
        await asyncio.sleep(1)
        assert len(events(api)) == 3

    play(scene)


def test_a_storm_is_slowed_down_and_its_surplus_dropped_and_counted() -> None:
    async def scene(api: FakeApi, recorder: Recorder) -> None:
        dropped = counted("dropped")
        for number in range(MAX_WAITING + 50):
            recorder.emit(ACCOUNT, "Skipped", f"reason {number}")
        assert counted("dropped") - dropped == 50
        await asyncio.sleep(0.1)
        assert len(events(api)) == BURST
        await asyncio.sleep(10)
        assert BURST + 19 <= len(events(api)) <= BURST + 21

    play(scene)


def test_an_api_server_that_refuses_them_harms_nobody() -> None:
    async def scene(api: FakeApi, recorder: Recorder) -> None:
        failed = counted("failed")
        api.faults.refuse(1)
        api.faults.refuse(1, errors.ForbiddenError(403, "Forbidden", "rbac"))
        recorder.emit(ACCOUNT, "Skipped", "one")
        recorder.emit(ACCOUNT, "Skipped", "two")
        await asyncio.sleep(1)
        assert counted("failed") - failed == 2
        recorder.emit(ACCOUNT, "Skipped", "one")
        await asyncio.sleep(1)
        assert [event["note"] for event in events(api)] == ["one"]

    play(scene)


def test_events_about_cluster_scoped_objects_live_in_default() -> None:
    async def scene(api: FakeApi, recorder: Recorder) -> None:
        recorder.emit(Regarding("v1", "Namespace", "shop"), "Injection", "enabled")
        await asyncio.sleep(1)
        assert events(api)[0]["metadata"]["namespace"] == "default"

    play(scene)
