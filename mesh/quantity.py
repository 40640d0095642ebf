"""Kubernetes quantities (`100m`, `64Mi`, `1.5`, `2e3`) as exact integers.

Source: k8s.io/apimachinery/pkg/api/resource/quantity.go: grammar in the comment of `Quantity`, sub-nano values
are rounded up, values are capped at 2^63-1.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Final

from mesh.errors import AutotlsError

_GRAMMAR: Final = re.compile(r"([+-]?)(\d+\.?\d*|\.\d+)(?:([KMGTPE]i)|([numkMGTPE]?)|[eE]([+-]?\d+))\Z", re.ASCII)
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_NANO: Final = 10**9
_CAP_NANO: Final = (2**63 - 1) * _NANO
# Longer text is nobody's quantity, and Python refuses to parse more than 4300 digits with another error.
_MAX_LENGTH: Final = 64
_MAX_EXPONENT: Final = 99


class QuantityError(AutotlsError):
    """A string is not a Kubernetes quantity."""


@dataclass(frozen=True, slots=True, order=True)
class Quantity:
    """An amount in billionths of its unit (a core, a byte), so that sums and comparisons are exact."""

    nano: int

    @classmethod
    def parse(cls, value: str | int | float) -> "Quantity":
        """Raises QuantityError unless `value` is a quantity; a bare number is read as its decimal text."""
        return _parse(value if isinstance(value, str) else str(value))

    def __add__(self, other: "Quantity") -> "Quantity":
        return Quantity(self.nano + other.nano)


ZERO: Final = Quantity(0)


@lru_cache(maxsize=1024)
def _parse(text: str) -> Quantity:
    # Cached: a cluster uses few distinct amounts, and exact fractions are slow for a path of microseconds.
    match = _GRAMMAR.match(text) if len(text) <= _MAX_LENGTH else None
    if match is None:
        raise QuantityError(f"{text[:_MAX_LENGTH]!r} is not a quantity", hint="write it as 100m, 0.5, 64Mi or 1G")
    sign, number, binary, decimal, exponent = match.groups()
    amount = Fraction(number if number[-1] != "." else number[:-1]) * _NANO
    if binary:
        amount *= 1 << _BINARY[binary]
    else:
        power = int(exponent) if exponent else _DECIMAL[decimal or ""]
        amount *= Fraction(10) ** max(-_MAX_EXPONENT, min(_MAX_EXPONENT, power))
    nano = min(-(-amount.numerator // amount.denominator), _CAP_NANO)
    return Quantity(-nano if sign == "-" else nano)
