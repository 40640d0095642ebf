"""The reflector against the API server in memory, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from kube import errors
from kube.kinds import CONFIG_MAPS, ConfigMap
from kube.reflector import Reflector
from tests.fakes.clock import now, run_virtual
from tests.fakes.kubeapi import FakeApi

PATH = "/api/v1/namespaces/shop/configmaps"


def config_map(name: str, *, labels: dict[str, str] | None = None, **data: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop", "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


class Mirror:
    """A reflector at work, and every change it reported."""

    def __init__(self, api: FakeApi, *, page_size: int = 500, jitter: float = 0.0, **options: Any) -> None:
        self.api = api
        self.changes: list[tuple[str, str | None]] = []
        self.reflector = Reflector(
            api,
            CONFIG_MAPS,
            ConfigMap,
            on_change=self._changed,
            page_size=page_size,
            jitter=lambda: jitter,
            clock=now,
            **options,
        )

    def _changed(self, key: str, item: ConfigMap | None) -> None:
        self.changes.append((key, None if item is None else item.metadata.resource_version))

    def names(self) -> list[str]:
        return sorted(self.reflector.store)


def play(scene: Callable[[Mirror], Awaitable[None]], *, count: int = 0, **options: Any) -> None:
    """Runs `scene` beside a reflector over `count` objects that is already in step."""

    async def main() -> None:
        api = FakeApi()
        for number in range(count):
            api.seed(config_map(f"map-{number:04}"))
        mirror = Mirror(api, **options)
        task = asyncio.create_task(mirror.reflector.run())
        await mirror.reflector.synced.wait()
        await asyncio.sleep(0.1)
        try:
            await scene(mirror)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    run_virtual(main())


def test_all_pages_are_mirrored_before_it_says_synced() -> None:
    async def scene(mirror: Mirror) -> None:
        assert len(mirror.reflector.store) == 1200
        assert len(mirror.changes) == 1200
        assert mirror.api.requests.count(("GET", CONFIG_MAPS)) == 3
        assert mirror.reflector.healthy_since is not None

    play(scene, count=1200, page_size=500)


def test_creation_change_and_deletion_are_followed() -> None:
    async def scene(mirror: Mirror) -> None:
        mirror.api.seed(config_map("a", x="1"))
        mirror.api.seed(config_map("a", x="2"))
        await asyncio.sleep(0.1)
        assert mirror.reflector.store["shop/a"].data == {"x": "2"}
        mirror.api.remove(f"{PATH}/a")
        await asyncio.sleep(0.1)
        assert mirror.names() == []
        assert mirror.changes == [("shop/a", "1"), ("shop/a", "2"), ("shop/a", None)]

    play(scene)


def test_an_object_that_leaves_the_selector_is_gone() -> None:
    async def scene(mirror: Mirror) -> None:
        mirror.api.seed(config_map("a", labels={"team": "red"}), config_map("b", labels={"team": "blue"}))
        await asyncio.sleep(0.1)
        assert mirror.names() == ["shop/a"]
        mirror.api.seed(config_map("a", labels={"team": "blue"}))
        await asyncio.sleep(0.1)
        assert mirror.names() == []

    play(scene, label_selector="team=red")


def test_a_dead_api_server_changes_nothing_and_is_asked_ever_more_rarely() -> None:
    async def scene(mirror: Mirror) -> None:
        before = list(mirror.changes)
        asked = len(mirror.api.requests)
        mirror.api.faults.down = True
        mirror.api.drop_watches()
        await asyncio.sleep(600)
        # Without jitter: 1 + 2 + 4 + 8 + 16 s, then every 30 s.
        assert 20 <= len(mirror.api.requests) - asked <= 26
        assert mirror.changes == before
        assert len(mirror.reflector.store) == 5
        assert mirror.reflector.healthy_since is None
        assert "nobody listens" in mirror.reflector.last_error

        mirror.api.seed(config_map("while-away"))
        mirror.api.faults.down = False
        await asyncio.sleep(31)
        assert mirror.changes[len(before) :] == [("shop/while-away", "6")]
        assert mirror.reflector.relists == 1, "it went on from its version without a list"
        assert mirror.reflector.healthy_since is not None

    play(scene, count=5)


def test_jitter_shortens_the_wait_by_up_to_a_half() -> None:
    async def scene(mirror: Mirror) -> None:
        asked = len(mirror.api.requests)
        mirror.api.faults.down = True
        mirror.api.drop_watches()
        await asyncio.sleep(600)
        assert 40 <= len(mirror.api.requests) - asked <= 50

    play(scene, jitter=1.0)


def test_compaction_leads_to_a_list_that_reports_only_what_changed() -> None:
    async def scene(mirror: Mirror) -> None:
        before = len(mirror.changes)
        mirror.api.faults.down = True
        mirror.api.drop_watches()
        await asyncio.sleep(1)
        mirror.api.seed(config_map("map-0001", x="new"), config_map("extra"))
        mirror.api.remove(f"{PATH}/map-0000")
        mirror.api.compact()
        mirror.api.faults.down = False
        await asyncio.sleep(60)
        assert mirror.changes[before:] == [("shop/map-0000", None), ("shop/extra", "5"), ("shop/map-0001", "4")]
        assert mirror.reflector.relists == 2

    play(scene, count=3)


def test_bookmarks_keep_a_quiet_watch_from_expiring() -> None:
    async def scene(mirror: Mirror) -> None:
        mirror.api.seed({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "elsewhere"}})
        mirror.api.bookmark()
        await asyncio.sleep(0.1)
        mirror.api.compact()
        mirror.api.drop_watches()
        await asyncio.sleep(5)
        assert mirror.reflector.relists == 1

    play(scene, count=3)


def test_a_continue_token_that_expires_on_the_way_is_replaced_by_one_full_list() -> None:
    async def main() -> None:
        api = FakeApi()
        for number in range(30):
            api.seed(config_map(f"map-{number:04}"))

        async def compact_after_first_page(verb: str, _path: str, _body: bytes | None) -> None:
            if verb == "GET" and len(api.requests) == 2:
                api.compact()

        api.faults.before = compact_after_first_page
        mirror = Mirror(api, page_size=10)
        task = asyncio.create_task(mirror.reflector.run())
        await mirror.reflector.synced.wait()
        assert len(mirror.reflector.store) == 30
        assert api.requests.count(("GET", CONFIG_MAPS)) == 3
        task.cancel()

    run_virtual(main())


def test_watches_that_end_without_a_word_do_not_make_it_spin() -> None:
    async def scene(mirror: Mirror) -> None:
        async def close_at_once(verb: str, _path: str, _body: bytes | None) -> None:
            if verb == "WATCH":
                asyncio.get_running_loop().call_soon(mirror.api.drop_watches)

        mirror.api.faults.before = close_at_once
        mirror.api.drop_watches()
        asked = len(mirror.api.requests)
        await asyncio.sleep(600)
        assert len(mirror.api.requests) - asked < 30

    play(scene)


def test_a_quiet_watch_that_the_client_gives_up_is_continued_at_once_and_is_no_fault() -> None:
    async def scene(mirror: Mirror) -> None:
        for _ in range(10):
            await asyncio.sleep(90)
            mirror.api.time_out_watches()
        await asyncio.sleep(0.1)
        assert mirror.api.open_watches == 1
        assert mirror.reflector.relists == 1
        assert mirror.reflector.last_error == ""

    play(scene)


def test_a_watch_that_lives_its_time_is_continued_at_once() -> None:
    async def scene(mirror: Mirror) -> None:
        await asyncio.sleep(299)
        assert mirror.api.open_watches == 1
        await asyncio.sleep(2)
        assert mirror.api.open_watches == 1
        assert mirror.reflector.watch_restarts == 1
        assert mirror.reflector.relists == 1

    play(scene)


@pytest.mark.parametrize(
    "error",
    [
        errors.ForbiddenError(403, "Forbidden", "rbac"),
        errors.ServerError(504, "Timeout", "Too large resource version"),
        errors.UnauthorizedError(401, "Unauthorized", "token"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_other_answers_are_survived_and_end_in_a_list(error: errors.ApiError) -> None:
    async def scene(mirror: Mirror) -> None:
        mirror.api.faults.refuse(2, error)
        mirror.api.drop_watches()
        await asyncio.sleep(30)
        mirror.api.seed(config_map("later"))
        await asyncio.sleep(1)
        assert "shop/later" in mirror.names()
        assert mirror.reflector.relists >= 2

    play(scene)


def test_an_object_that_does_not_fit_keeps_its_last_state_and_harms_no_other() -> None:
    async def scene(mirror: Mirror) -> None:
        broken = config_map("map-0000")
        broken["data"] = ["not", "a", "map"]
        mirror.api.seed(broken, config_map("next"))
        await asyncio.sleep(0.1)
        assert mirror.names() == ["shop/map-0000", "shop/next"]
        mirror.api.compact()
        mirror.api.faults.refuse(1, errors.GoneError(410, "Expired", "old"))
        mirror.api.drop_watches()
        await asyncio.sleep(30)
        assert mirror.reflector.relists == 2
        assert mirror.names() == ["shop/map-0000", "shop/next"]

    play(scene, count=1)


def test_what_a_callback_raises_ends_the_reflector() -> None:
    async def main() -> None:
        api = FakeApi()
        api.seed(config_map("a"))

        def fail(_key: str, _item: ConfigMap | None) -> None:
            raise LookupError("a bug of the caller")

        with pytest.raises(LookupError):
            await Reflector(api, CONFIG_MAPS, ConfigMap, on_change=fail).run()

    run_virtual(main())
