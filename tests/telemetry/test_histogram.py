"""Percentiles from buckets."""

import math

from hypothesis import given
from hypothesis import strategies as st

from telemetry.histogram import Histogram

BOUNDS = (1.0, 5.0, 10.0, 50.0, 100.0)


def of_values(values: list[float], bounds: tuple[float, ...] = BOUNDS) -> Histogram:
    buckets = {bound: float(sum(value <= bound for value in values)) for bound in bounds}
    return Histogram.of({**buckets, math.inf: float(len(values))})


def test_empty_histogram_has_no_percentile() -> None:
    assert Histogram().quantile(0.5) is None
    assert of_values([]).quantile(0.99) is None


def test_place_within_a_bucket_is_on_a_straight_line() -> None:
    assert Histogram.of({10: 0, 20: 4, math.inf: 4}).quantile(0.5) == 15


def test_what_is_above_every_bound_is_told_as_the_largest() -> None:
    assert of_values([1000.0]).quantile(0.5) == 100


def test_counts_that_shrink_are_lifted() -> None:
    assert Histogram.of({1: 5, 5: 4, math.inf: 6}).counts == (5, 5, 6)


values = st.lists(st.floats(0.01, 99.0), min_size=1, max_size=60)


@given(values, st.floats(0.01, 0.99))
def test_percentile_is_in_the_bucket_of_the_true_one(sample: list[float], q: float) -> None:
    found = of_values(sample).quantile(q)
    true = sorted(sample)[max(0, math.ceil(q * len(sample)) - 1)]
    upper = next(bound for bound in BOUNDS if true <= bound)
    lower = max((bound for bound in BOUNDS if bound < true), default=0.0)
    assert found is not None
    assert lower - 1e-9 <= found <= upper + 1e-9


@given(values, values)
def test_sum_is_the_histogram_of_both(first: list[float], second: list[float]) -> None:
    assert of_values(first).plus(of_values(second)) == of_values(first + second)


@given(values, values)
def test_sum_over_different_bounds_keeps_the_count_and_ascends(first: list[float], second: list[float]) -> None:
    found = of_values(first).plus(of_values(second, (2.0, 10.0, 200.0)))
    assert found.total == len(first) + len(second)
    assert list(found.counts) == sorted(found.counts)
