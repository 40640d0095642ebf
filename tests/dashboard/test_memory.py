"""What is kept of proxies' answers, and for how long."""

from __future__ import annotations

import pytest

from dashboard.curves import HEIGHT, WIDTH, sparkline, thin
from dashboard.memory import Scrapes, Trends


def key(number: int) -> bytes:
    # Made anew each time, as a parser does.
    return f"envoy_autotls_rq{{svc={number}}}".encode()


def test_window_reaches_back_as_far_as_it_should_and_no_further() -> None:
    scrapes = Scrapes(window_s=30)
    for step in range(20):
        scrapes.add("a", 100 + 5 * step, {key(1): float(step)})
    ends = scrapes.window("a", 195)
    assert ends is not None and ends[0] is not None
    assert (ends[0].at, ends[1].at) == (165, 195)
    assert dict(ends[1].samples) == {key(1): 19.0}


def test_a_proxy_seen_once_has_no_beginning_and_one_that_fell_silent_has_nothing() -> None:
    scrapes = Scrapes(window_s=30)
    scrapes.add("a", 100, {key(1): 1.0})
    ends = scrapes.window("a", 100)
    assert ends is not None and ends[0] is None
    assert scrapes.window("a", 131) is None
    assert scrapes.window("b", 100) is None


def test_same_series_of_many_proxies_are_kept_once() -> None:
    scrapes = Scrapes(window_s=30)
    for proxy in ("a", "b"):
        scrapes.add(proxy, 100, {key(1): 1.0, key(2): 2.0})
    names = [list((scrapes.window(proxy, 100) or (None, None))[1].samples) for proxy in ("a", "b")]  # type: ignore[union-attr]
    assert all(one is other for one, other in zip(*names, strict=True))


def test_proxies_that_are_gone_are_forgotten_with_their_series() -> None:
    scrapes = Scrapes(window_s=30)
    scrapes.add("a", 100, {key(1): 1.0})
    scrapes.add("b", 100, {key(2): 1.0})
    scrapes.keep(["b"])
    assert scrapes.window("a", 100) is None
    assert scrapes.series == 1


def test_trends_are_bounded_and_forget_what_has_no_value_any_more() -> None:
    trends = Trends(length=4)
    for step in range(10):
        trends.add({"steady": float(step)} | ({"gone": 1.0} if step < 3 else {}))
    assert trends.of("steady") == (6, 7, 8, 9)
    assert trends.of("gone") == ()


def test_a_missing_value_is_a_zero_or_with_hold_the_last_one() -> None:
    rates, shares = Trends(), Trends(hold=True)
    for trends in (rates, shares):
        trends.add({"a": 0.5})
        trends.add({})
    assert (rates.of("a"), shares.of("a")) == ((0.5, 0.0), (0.5, 0.5))


def test_long_trends_are_thinned_to_means_that_end_with_the_newest() -> None:
    assert thin([1.0, 2.0, 3.0, 4.0, 5.0], most=2) == (1.5, 4.0)
    assert thin([1.0, 2.0], most=2) == (1.0, 2.0)


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [1e9, 0.0], [3.0] * 500])
def test_sparkline_stays_in_its_box_with_the_newest_at_the_right_edge(values: list[float]) -> None:
    points = [tuple(map(float, point.split(","))) for point in sparkline(values).split()]
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)
    assert points[-1][0] == pytest.approx(WIDTH)


def test_sparkline_of_less_than_two_values_is_empty() -> None:
    assert sparkline([]) == sparkline([1.0]) == ""
