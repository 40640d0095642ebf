"""Root and issuer from the first day to after the root's last, step by step and as a whole."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from ca import slots
from ca.authority import Authority, RootState, first_root
from ca.issuer import Issued
from ca.policy import Issue, judge
from ca.profile import Lifetimes
from ca.slots import Step
from ca.verify import chain_fault
from mesh.svid import TrustBundle, parse_credential
from tests.ca.authorities import LIFETIMES, T0, WEB, a_leaf, a_root, an_issuer, openssl_verify, secret_data

DAY = timedelta(days=1)


def step(root: RootState | None, issuer: Authority | None, now: datetime) -> Step:
    return slots.plan(root, issuer, now, LIFETIMES).step


def test_the_first_start_makes_a_root_then_an_issuer_then_rests() -> None:
    assert step(None, None, T0) is Step.MAKE_ROOT
    root = first_root(a_root())
    assert step(root, None, T0) is Step.MAKE_ISSUER
    plan = slots.plan(root, an_issuer(root.current), T0, LIFETIMES)
    assert plan.step is Step.NOTHING
    assert plan.due == T0 + LIFETIMES.issuer * 2 / 3


def test_an_issuer_without_a_root_does_not_stand_for_one() -> None:
    assert step(None, an_issuer(a_root()), T0) is Step.MAKE_ROOT


def test_an_issuer_of_another_root_is_replaced() -> None:
    assert step(first_root(a_root()), an_issuer(a_root()), T0) is Step.MAKE_ISSUER


def test_an_issuer_is_followed_at_two_thirds_of_its_life() -> None:
    root = first_root(a_root())
    issuer = an_issuer(root.current)
    due = T0 + LIFETIMES.issuer * 2 / 3
    assert step(root, issuer, due - DAY) is Step.NOTHING
    assert step(root, issuer, due) is Step.MAKE_ISSUER


def test_an_issuer_is_followed_while_it_can_still_sign_a_full_leaf() -> None:
    tight = replace(LIFETIMES, leaf=timedelta(days=5), issuer=timedelta(days=9))
    issuer = an_issuer(a_root(), lifetimes=tight).certificate
    assert issuer.not_valid_after_utc - slots.issuer_renewal_at(issuer, tight) >= tight.leaf


def test_the_next_root_is_prepared_three_issuer_lives_before_the_end_and_active_two() -> None:
    root = first_root(a_root())
    end = root.current.certificate.not_valid_after_utc
    issuer = an_issuer(root.current, now=end - 4 * LIFETIMES.issuer)
    assert step(root, issuer, end - 3 * LIFETIMES.issuer - DAY) is not Step.PREPARE_ROOT
    assert step(root, issuer, end - 3 * LIFETIMES.issuer) is Step.PREPARE_ROOT
    prepared = root.prepared(a_root(now=end - 3 * LIFETIMES.issuer))
    assert step(prepared, issuer, end - 2 * LIFETIMES.issuer - DAY) is not Step.ACTIVATE_ROOT
    assert step(prepared, issuer, end - 2 * LIFETIMES.issuer) is Step.ACTIVATE_ROOT


def test_a_root_that_was_prepared_late_is_trusted_for_an_hour_before_it_signs() -> None:
    root = first_root(a_root())
    end = root.current.certificate.not_valid_after_utc
    late = end - timedelta(days=30)
    prepared = root.prepared(a_root(now=late))
    issuer = an_issuer(root.current, now=late)
    assert step(prepared, issuer, late + timedelta(minutes=59)) is not Step.ACTIVATE_ROOT
    assert step(prepared, issuer, late + timedelta(minutes=60)) is Step.ACTIVATE_ROOT


def test_an_expired_root_is_followed_at_once() -> None:
    root = first_root(a_root())
    now = root.current.certificate.not_valid_after_utc + DAY
    assert step(root, None, now) is Step.PREPARE_ROOT
    assert step(root.prepared(a_root(now=now)), None, now) is Step.ACTIVATE_ROOT


def test_activation_keeps_the_former_root_trusted_until_it_ends() -> None:
    root = first_root(a_root())
    successor = a_root(now=T0 + 7 * 365 * DAY)
    active = root.prepared(successor).activated(T0 + 8 * 365 * DAY)
    assert active.current == successor and active.next is None
    assert active.bundle.roots == (root.current.certificate, successor.certificate)
    assert active.bundle.at(T0 + 11 * 365 * DAY).roots == (successor.certificate,)


def test_renewing_an_issuer_that_could_not_live_longer_never_starts() -> None:
    short = replace(LIFETIMES, root=timedelta(days=400))
    root = first_root(a_root(lifetimes=short))
    end = root.current.certificate.not_valid_after_utc
    issuer = an_issuer(root.current, now=end - timedelta(days=20), lifetimes=short)
    now = end - timedelta(days=2)
    prepared = root.prepared(a_root(now=now, lifetimes=short))
    assert slots.plan(prepared, issuer, now, short).step is Step.NOTHING


class Workload:
    """A pod's Secret, and the bundle that it really uses: the kubelet is late by `lag`."""

    def __init__(self, lag: timedelta) -> None:
        self.lag = lag
        self.versions: list[tuple[datetime, Issued, TrustBundle]] = []

    def write(self, now: datetime, issued: Issued, bundle: TrustBundle) -> None:
        self.versions.append((now, issued, bundle))

    def mounted(self, now: datetime) -> tuple[Issued, TrustBundle]:
        seen = [entry for entry in self.versions if entry[0] + self.lag <= now] or self.versions[:1]
        return seen[-1][1], seen[-1][2]


class World:
    """The CA's rules and some workloads under one clock."""

    def __init__(self, lifetimes: Lifetimes, lag: timedelta) -> None:
        self.lifetimes = lifetimes
        self.root: RootState | None = None
        self.issuer: Authority | None = None
        self.workloads = [Workload(timedelta(0)), Workload(lag / 2), Workload(lag)]
        self.roots: list[Authority] = []
        self.steps: list[Step] = []
        self.issued = 0

    def tick(self, now: datetime) -> None:
        while (plan := slots.plan(self.root, self.issuer, now, self.lifetimes)).step is not Step.NOTHING:
            self.steps.append(plan.step)
            self._do(plan.step, now)
        assert self.root is not None and self.issuer is not None
        bundle = self.root.bundle.at(now)
        for workload in self.workloads:
            data = None
            if workload.versions:
                _, issued, held = workload.versions[-1]
                data = {"tls.crt": issued.chain_pem, "tls.key": issued.key_pem, "ca.crt": held.pem}
            if isinstance(judge(data, WEB, bundle, self.lifetimes, now), Issue):
                workload.write(now, a_leaf(self.issuer, now=now, lifetimes=self.lifetimes), bundle)
                self.issued += 1

    def _do(self, wanted: Step, now: datetime) -> None:
        if wanted is Step.MAKE_ROOT:
            self.root = first_root(self._new_root(now))
            return
        assert self.root is not None
        if wanted is Step.PREPARE_ROOT:
            self.root = self.root.prepared(self._new_root(now))
        elif wanted is Step.ACTIVATE_ROOT:
            self.root = self.root.activated(now)
        else:
            self.issuer = an_issuer(self.root.current, now=now, lifetimes=self.lifetimes)

    def _new_root(self, now: datetime) -> Authority:
        root = a_root(now=now, lifetimes=self.lifetimes)
        self.roots.append(root)
        return root

    def faults(self, now: datetime) -> list[str]:
        """Every handshake between two workloads that would fail now."""
        found: list[str] = []
        mounted = [workload.mounted(now) for workload in self.workloads]
        for issued, _ in mounted:
            for _, bundle in mounted:
                credential = parse_credential(
                    {"tls.crt": issued.chain_pem, "tls.key": issued.key_pem, "ca.crt": bundle.pem}
                )
                if fault := chain_fault(credential.leaf, credential.issuers, bundle, now):
                    found.append(f"{now}: {fault}")
        return found  # fmt: skip


# Lives in the proportions of the defaults, in steps that renewals need; the defaults with their own leaves take
# minutes to walk through.
WHOLE_LIVES = {
    "ten years, leaves of a month": (replace(LIFETIMES, leaf=timedelta(days=30)), timedelta(days=4)),
    "a year, leaves of a day": (
        replace(LIFETIMES, issuer=timedelta(days=36), root=timedelta(days=365)),
        timedelta(hours=7),
    ),
}


@pytest.mark.parametrize(("lifetimes", "pace"), WHOLE_LIVES.values(), ids=WHOLE_LIVES.keys())
def test_no_leaf_ever_fails_to_verify_through_a_whole_roots_life(
    tmp_path: Path, lifetimes: Lifetimes, pace: timedelta
) -> None:
    """From the first start to a fifth of a life after the root's end; peers up to two minutes behind."""
    world = World(lifetimes, lag=timedelta(minutes=2))
    now, looks = T0, 0
    while now < T0 + lifetimes.root * 1.2:
        world.tick(now)
        for moment in (now, now + timedelta(minutes=1), now + timedelta(minutes=3)):
            assert not world.faults(moment)
        if looks % 40 == 0:
            issued, _ = world.workloads[0].mounted(now)
            assert openssl_verify(tmp_path, issued.chain_pem, *world.roots, now=now).stderr == ""
        looks += 1
        now += pace
    assert len(world.roots) == 2
    assert world.steps.count(Step.ACTIVATE_ROOT) == 1
    assert 14 < world.steps.count(Step.MAKE_ISSUER) < 22


@pytest.mark.parametrize("seed", range(3))
def test_lives_of_seconds_pass_the_same_way(seed: int) -> None:
    """What a test on a cluster uses: roots of 10 minutes, leaves of 20 s; peers 10 s behind, a look each second."""
    short = Lifetimes(
        leaf=timedelta(seconds=60 + seed),
        issuer=timedelta(seconds=150),
        root=timedelta(seconds=600),
        skew=timedelta(seconds=300),
        renew_at=2 / 3,
        jitter=0.05,
    )
    world = World(short, lag=timedelta(seconds=12))
    for second in range(1500):
        now = T0 + timedelta(seconds=second)
        world.tick(now)
        assert not world.faults(now)
    assert len(world.roots) >= 3
    assert world.issued < 3 * 1500 / 30


def test_the_world_can_fail() -> None:
    """The same world without preparation: the faults that the tests above would see."""
    world = World(LIFETIMES, lag=timedelta(minutes=2))
    world.tick(T0)
    world.root = first_root(a_root(now=T0 + DAY))
    world.tick(T0 + DAY)
    assert world.faults(T0 + DAY)


def test_secret_data_survives_the_way_through_the_secret() -> None:
    from ca.authority import issuer_data, parse_issuer, parse_root

    root = first_root(a_root()).prepared(a_root(now=T0 + DAY))
    again = parse_root(root.data())
    assert (again.current, again.next, again.bundle) == (root.current, root.next, root.bundle)
    issuer = an_issuer(root.current)
    assert parse_issuer(issuer_data(issuer, root.bundle), T0) == (issuer, root.bundle)
    assert secret_data(a_leaf(issuer), root.current)["ca.crt"]
