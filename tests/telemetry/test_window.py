"""Increases between scrapes: never negative, never more than was counted, whatever restarted."""

from hypothesis import given
from hypothesis import strategies as st

from telemetry.exposition import UPTIME
from telemetry.window import Scrape, increase, total

RQ = b'envoy_autotls_rq{code="200"}'
LOW = b'envoy_autotls_rq_us_bucket{dir="inbound",le="1"}'
HIGH = b'envoy_autotls_rq_us_bucket{dir="inbound",le="5"}'


def scrape(at: float, uptime: float, **values: float) -> Scrape:
    names = {"rq": RQ, "low": LOW, "high": HIGH}
    return Scrape(at, {UPTIME: uptime, **{names[key]: value for key, value in values.items()}})


def test_increase_is_the_difference() -> None:
    assert increase(scrape(0, 100, rq=5), scrape(10, 110, rq=8)) == {RQ: 3}


def test_what_did_not_change_is_left_out() -> None:
    assert increase(scrape(0, 100, rq=5), scrape(10, 110, rq=5)) == {}


def test_series_that_is_new_counts_from_zero() -> None:
    assert increase(scrape(0, 100), scrape(10, 110, rq=8)) == {RQ: 8}


def test_series_that_was_evicted_and_made_again_counts_from_zero() -> None:
    assert increase(scrape(0, 100, rq=50), scrape(10, 110, rq=8)) == {RQ: 8}


def test_restart_is_seen_where_the_counter_has_overtaken_itself() -> None:
    assert increase(scrape(0, 100, rq=5), scrape(60, 20, rq=8)) == {RQ: 8}


def test_restart_is_seen_by_an_uptime_that_grew_less_than_the_clock() -> None:
    assert increase(scrape(0, 10, rq=5), scrape(600, 400, rq=8)) == {RQ: 8}


def test_lagging_uptime_is_no_restart() -> None:
    assert increase(scrape(0, 100, rq=5), scrape(10, 105, rq=8)) == {RQ: 3}


def test_buckets_of_a_histogram_are_reset_together() -> None:
    assert increase(scrape(0, 100, low=5, high=10), scrape(10, 110, low=4, high=11)) == {LOW: 4, HIGH: 11}


def test_buckets_that_did_not_change_are_there_when_others_did() -> None:
    assert increase(scrape(0, 100, low=0, high=10), scrape(10, 110, low=0, high=11)) == {LOW: 0, HIGH: 1}
    assert increase(scrape(0, 100, low=0, high=10), scrape(10, 110, low=0, high=10)) == {}


def test_proxy_without_an_earlier_scrape_is_unknown() -> None:
    assert increase(None, scrape(10, 110, rq=8)) is None
    assert total([scrape(10, 110, rq=8)]) is None


def test_proxy_of_a_pod_that_appeared_counts_from_zero() -> None:
    assert increase(None, scrape(10, 3, rq=8), newborn=True) == {RQ: 8}
    assert total([scrape(5, 2, rq=8), scrape(10, 7, rq=9)], newborn=True) == {RQ: 9}


def test_what_was_evicted_between_two_looks_is_in_the_total() -> None:
    assert total([scrape(0, 100), scrape(60, 160, rq=8), scrape(120, 220)]) == {RQ: 8}


STEPS = st.lists(
    st.tuples(st.sampled_from(["count", "restart", "evict"]), st.integers(0, 50), st.integers(1, 400)), max_size=12
)


@given(STEPS, st.integers(0, 11))
def test_total_is_never_negative_and_never_more_than_happened(steps: list[tuple[str, int, int]], base: int) -> None:
    """A life of one counter; `low` is the share of it in the smaller bucket."""
    at, born, count, low = 1000.0, 0.0, float(base), float(base // 2)
    happened = 0.0
    scrapes = [scrape(at, at - born, rq=count, low=low, high=count)]
    for step, amount, passed in steps:
        at += passed
        if step == "restart":
            born, count, low = at - 1, 0.0, 0.0
        elif step == "evict":
            count, low = 0.0, 0.0
        count, low, happened = count + amount, low + amount // 2, happened + amount
        scrapes.append(scrape(at, at - born, rq=count, low=low, high=count))
    found = total(scrapes) or {}
    assert all(value >= 0 for value in found.values())
    assert found.get(RQ, 0) <= happened
    assert found.get(LOW, 0) <= found.get(HIGH, 0) <= happened
