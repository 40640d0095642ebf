"""Quantities mean what k8s.io/apimachinery's resource.Quantity means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.quantity import Quantity, QuantityError

NANO = 10**9


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("0", 0),
        ("1", NANO),
        ("+1", NANO),
        ("-1", -NANO),
        ("100m", NANO // 10),
        ("0.1", NANO // 10),
        (".5", NANO // 2),
        ("5.", 5 * NANO),
        ("1k", 1000 * NANO),
        ("1Ki", 1024 * NANO),
        ("1.5Gi", 3 * 2**29 * NANO),
        ("12e6", 12 * 10**6 * NANO),
        ("12E6", 12 * 10**6 * NANO),
        ("1E", 10**18 * NANO),
        ("1e-3", NANO // 1000),
        ("1n", 1),
        pytest.param("0.1n", 1, id="below a billionth is rounded up"),
        pytest.param("-0.1n", -1, id="away from zero for negative ones as well"),
        pytest.param("9Ei", (2**63 - 1) * NANO, id="capped"),
        pytest.param("1e99999", (2**63 - 1) * NANO, id="absurd exponent is capped, not computed"),
        pytest.param("1e-99999", 1, id="absurdly small is a billionth"),
    ],
)
def test_quantity_is_exact(text: str, nano: int) -> None:
    assert Quantity.parse(text).nano == nano


@pytest.mark.parametrize(
    "text",
    ["", " 1", "1 ", "1KI", "1ki", "m", "1mm", "1e", "--1", "0x10", "1,5", "NaN", "inf", "١", "1" * 5000, "1_000"],
)
def test_other_text_is_no_quantity(text: str) -> None:
    with pytest.raises(QuantityError):
        Quantity.parse(text)


@pytest.mark.parametrize(("number", "text"), [(1, "1"), (0.5, "500m"), (1e-7, "100n")])
def test_bare_numbers_are_read_as_their_text(number: float, text: str) -> None:
    assert Quantity.parse(number) == Quantity.parse(text)


@given(st.integers(0, 10**6), st.sampled_from(["m", "", "k", "M"]), st.integers(0, 10**6))
def test_sums_and_order_are_those_of_the_numbers(one: int, unit: str, other: int) -> None:
    left, right = Quantity.parse(f"{one}{unit}"), Quantity.parse(f"{other}{unit}")
    assert left + right == Quantity.parse(f"{one + other}{unit}")
    assert (left < right) is (one < other)


@given(st.text(max_size=80))
def test_any_text_is_a_quantity_or_an_error(text: str) -> None:
    try:
        Quantity.parse(text)
    except QuantityError as error:
        assert len(str(error)) < 500
