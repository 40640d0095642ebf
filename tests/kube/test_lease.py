"""Leader election in virtual time: one leader, whatever fails."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kube import errors
from kube.lease import Elector, LeaseTiming
from mesh.config import ConfigError
from tests.fakes.clock import now, run_virtual
from tests.fakes.kubeapi import FakeApi
from tests.kube.candidates import LEASE, Candidate, overlaps

SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "autotls"}}


def play(scene: Callable[[FakeApi, Candidate, Candidate], Awaitable[None]], **options: float) -> None:
    """Runs `scene` with two candidates of which the first leads; afterwards, no two shifts may have overlapped."""

    async def main() -> None:
        api = FakeApi()
        first, second = Candidate(api, "first", **options), Candidate(api, "second", **options)
        first.start()
        await asyncio.sleep(0.1)
        second.start()
        await asyncio.sleep(3)
        assert (first.working, second.working) == (True, False)
        await scene(api, first, second)
        await first.stop()
        await second.stop()
        assert overlaps([first, second]) == []

    run_virtual(main())


def test_the_record_is_what_client_go_writes() -> None:
    async def scene(api: FakeApi, first: Candidate, second: Candidate) -> None:
        spec = api.get(LEASE)["spec"]
        assert spec == {
            "holderIdentity": "first",
            "leaseDurationSeconds": 15,
            "acquireTime": "2026-01-01T00:00:00.000000Z",
            "renewTime": "2026-01-01T00:00:02.000000Z",
            "leaseTransitions": 0,
        }
        assert (first.elector.is_leader, second.elector.is_leader) == (True, False)
        assert second.elector.holder == "first"

    play(scene)


def test_a_stopped_leader_hands_over_within_one_wait_of_the_next() -> None:
    async def scene(api: FakeApi, first: Candidate, second: Candidate) -> None:
        await first.stop()
        assert api.get(LEASE)["spec"]["holderIdentity"] == ""
        await asyncio.sleep(2.2 * 2)
        assert second.working
        assert api.get(LEASE)["spec"]["leaseTransitions"] == 1

    play(scene)


def test_only_a_renewal_in_sight_counts_as_somebody_to_follow() -> None:
    async def main() -> None:
        api = FakeApi()
        dead = Candidate(api, "dead").start()
        await asyncio.sleep(5)
        dead.line.hangs = True  # as a killed process: its record stays
        waiting = Candidate(api, "waiting").start()
        await asyncio.sleep(10)
        assert (waiting.elector.holder, waiting.elector.follows_leader) == ("dead", False)
        await asyncio.sleep(10)
        assert waiting.elector.is_leader and not waiting.elector.follows_leader
        later = Candidate(api, "later").start()
        await asyncio.sleep(5)
        assert later.elector.follows_leader
        waiting.line.hangs = True
        await asyncio.sleep(24)
        assert later.elector.is_leader and not later.elector.follows_leader
        for candidate in (dead, waiting, later):
            await candidate.stop()

    run_virtual(main())


def test_a_leader_that_winds_down_slowly_keeps_the_lease_until_it_has_ended() -> None:
    async def scene(api: FakeApi, first: Candidate, second: Candidate) -> None:
        stopping = asyncio.create_task(first.stop())
        await asyncio.sleep(39)
        assert first.working
        assert not second.working
        assert first.elector.is_leader, "the end of the work may still write"
        await stopping
        await asyncio.sleep(5)
        assert second.working

    play(scene, winding_down_s=40)


@pytest.mark.parametrize(
    "error",
    [
        errors.UnreachableError("ConnectionRefusedError", "nobody listens"),
        errors.ServerError(500, "InternalError", "etcdserver: leader changed"),
        errors.ForbiddenError(403, "Forbidden", "rbac"),
        errors.ConflictError(409, "Conflict", "somebody else wrote"),
        errors.NotFoundError(404, "NotFound", "the namespace is gone"),
        errors.UnauthorizedError(401, "Unauthorized", "the token expired"),
    ],
    ids=lambda error: error.reason,
)
def test_work_ends_at_the_renew_deadline_whatever_the_error(error: errors.ApiError) -> None:
    async def scene(api: FakeApi, first: Candidate, second: Candidate) -> None:
        cut_at = now()
        first.line.error = error
        await asyncio.sleep(10)
        ((_, ended),) = first.shifts
        assert 8 <= ended - cut_at <= 10, "10 s after the start of the last renewal, which was at most 2 s old"
        assert not second.working
        await asyncio.sleep(5 + 2.2 * 2)
        assert second.working

    play(scene)


def test_work_ends_at_the_renew_deadline_when_requests_hang() -> None:
    async def scene(api: FakeApi, first: Candidate, second: Candidate) -> None:
        first.line.hangs = True
        await asyncio.sleep(10)
        assert len(first.shifts) == 1
        await asyncio.sleep(10)
        assert second.working

    play(scene)


def test_the_deadline_counts_from_before_a_renewal_whose_answer_came_late() -> None:
    async def scene(api: FakeApi, first: Candidate, second: Candidate) -> None:
        first.line.answers_late_s = 4.0
        await asyncio.sleep(6)
        first.line.cut()
        await asyncio.sleep(15)
        ((_, ended),) = first.shifts
        assert ended - first.line.last_write_sent <= 10

    play(scene)


def test_an_api_server_that_is_away_for_less_than_the_deadline_changes_nothing() -> None:
    async def scene(api: FakeApi, first: Candidate, second: Candidate) -> None:
        api.faults.down = True
        await asyncio.sleep(7)
        api.faults.down = False
        await asyncio.sleep(30)
        assert first.working
        assert first.shifts == []
        assert api.get(LEASE)["spec"]["leaseTransitions"] == 0

    play(scene)


def test_after_a_long_absence_of_the_api_server_one_of_them_works_again() -> None:
    async def scene(api: FakeApi, first: Candidate, second: Candidate) -> None:
        api.faults.down = True
        await asyncio.sleep(3600)
        assert not first.working
        assert not second.working
        api.faults.down = False
        await asyncio.sleep(30)
        assert first.working != second.working

    play(scene)


def test_a_leader_that_lost_can_lead_again() -> None:
    async def scene(api: FakeApi, first: Candidate, second: Candidate) -> None:
        first.line.cut()
        await asyncio.sleep(30)
        assert second.working
        first.line.mend()
        await second.stop()
        await asyncio.sleep(5)
        assert first.working
        assert len(first.shifts) == 1

    play(scene)


def test_a_lease_taken_by_another_ends_the_work_at_the_next_renewal() -> None:
    async def scene(api: FakeApi, first: Candidate, second: Candidate) -> None:
        lease = api.get(LEASE)
        api.seed({**lease, "spec": {**lease["spec"], "holderIdentity": "a person with kubectl"}})
        await asyncio.sleep(2.1)
        assert not first.working

    play(scene)


def test_wall_clocks_that_differ_by_hours_change_nothing() -> None:
    async def main() -> None:
        api = FakeApi()
        first = Candidate(api, "first", wall_error=timedelta(hours=-5)).start()
        await asyncio.sleep(1)
        second = Candidate(api, "second", wall_error=timedelta(hours=5)).start()
        await asyncio.sleep(120)
        assert (first.working, second.working) == (True, False)
        await first.stop()
        await second.stop()

    run_virtual(main())


def test_labels_and_unknown_fields_of_the_lease_survive_a_renewal() -> None:
    async def scene(api: FakeApi, first: Candidate, second: Candidate) -> None:
        lease = api.get(LEASE)
        metadata = {**lease["metadata"], "labels": {"team": "red"}}
        api.seed({**lease, "metadata": metadata, "spec": {**lease["spec"], "strategy": "OldestEmulationVersion"}})
        await asyncio.sleep(5)
        assert api.get(LEASE)["metadata"]["labels"] == {"team": "red"}
        assert api.get(LEASE)["spec"]["strategy"] == "OldestEmulationVersion"
        assert first.working

    play(scene)


def elector(api: FakeApi) -> Elector:
    return Elector(api, namespace="autotls", name="autotls-ca", identity="me", clock=now)


def test_work_that_returns_ends_the_run_and_releases_the_lease() -> None:
    async def main() -> None:
        api = FakeApi()

        async def work() -> None:
            await asyncio.sleep(60)

        await elector(api).run(work)
        assert now() >= 60
        assert api.get(LEASE)["spec"]["holderIdentity"] == ""

    run_virtual(main())


def test_what_the_work_raises_comes_out_and_the_lease_is_released() -> None:
    async def main() -> None:
        api = FakeApi()

        async def work() -> None:
            await asyncio.sleep(1)
            raise LookupError("a bug")

        with pytest.raises(LookupError):
            await elector(api).run(work)
        assert api.get(LEASE)["spec"]["holderIdentity"] == ""

    run_virtual(main())


def test_work_that_ignores_its_cancellation_ends_the_process_before_the_lease_is_over() -> None:
    async def scene(api: FakeApi, first: Candidate, second: Candidate) -> None:
        first.line.cut()
        cut_at = now()
        await first.aborted.wait()
        assert now() - cut_at <= 15.1
        assert not second.working

    async def main() -> None:
        api = FakeApi()
        first, second = Candidate(api, "first", winding_down_s=1e6).start(), Candidate(api, "second")
        await asyncio.sleep(0.1)
        second.start()
        await asyncio.sleep(3)
        await scene(api, first, second)

    run_virtual(main())


def test_a_process_that_slept_through_its_lease_writes_nothing_when_it_wakes() -> None:
    async def main() -> None:
        api = FakeApi()
        asleep = 0.0
        me = Elector(api, namespace="autotls", name="autotls-ca", identity="me", clock=lambda: now() + asleep)
        fenced = me.fenced(api)
        refused = asyncio.Event()

        async def work() -> None:
            nonlocal asleep
            await fenced.request("POST", "/api/v1/namespaces/autotls/secrets", body=b'{"metadata": {"name": "a"}}')
            asleep = 20.0
            with pytest.raises(errors.NotLeaderError):
                await fenced.request("POST", "/api/v1/namespaces/autotls/secrets", body=b'{"metadata": {"name": "b"}}')
            assert await fenced.request("GET", "/api/v1/namespaces/autotls/secrets")
            refused.set()

        await me.run(work)
        assert refused.is_set()
        assert [secret["metadata"]["name"] for secret in api.listed("secrets")] == ["a"]

    run_virtual(main())


def test_timings_that_would_allow_two_leaders_are_refused() -> None:
    with pytest.raises(ConfigError, match="must grow in this order"):
        LeaseTiming(duration_s=10, renew_deadline_s=10)


FAULT = st.tuples(
    st.integers(0, 3), st.sampled_from(["cut", "hang", "mend", "slow", "fast", "restart"]), st.floats(0.1, 25)
)


@settings(max_examples=60, deadline=None)
@given(faults=st.lists(FAULT, min_size=5, max_size=40), winding_down_s=st.floats(0, 4.9))
def test_no_history_of_faults_lets_two_work_at_once(
    faults: list[tuple[int, str, float]], winding_down_s: float
) -> None:
    async def main() -> None:
        api = FakeApi()
        candidates = [Candidate(api, f"candidate-{n}", winding_down_s=winding_down_s).start() for n in range(4)]
        for who, fault, seconds in faults:
            candidate = candidates[who]
            match fault:
                case "cut":
                    candidate.line.cut()
                case "hang":
                    candidate.line.hangs = True
                case "mend":
                    candidate.line.mend()
                case "slow":
                    api.faults.latency_s = 3.0
                case "fast":
                    api.faults.latency_s = 0.0
                case _:
                    await candidate.stop()
                    candidate.start()
            await asyncio.sleep(seconds)
        api.faults.latency_s = 0.0
        for candidate in candidates:
            candidate.line.mend()
        await asyncio.sleep(60)
        assert sum(candidate.working for candidate in candidates) == 1, "the election lives on"
        for candidate in candidates:
            await candidate.stop()
        assert overlaps(candidates) == []
        assert not any(candidate.aborted.is_set() for candidate in candidates)

    run_virtual(main())
