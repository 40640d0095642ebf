"""Numbers as people read them: shares, durations, bytes. Pure; for the terminal and for the page."""

from collections.abc import Mapping
from typing import Final

NONE: Final = "-"
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


def percent(share: float | None, digits: int = 2) -> str:
    """`99.97%`; never `100.00%` for less than all, nor `0.00%` for more than nothing."""
    if share is None:
        return NONE
    smallest = 10.0**-digits
    value = round(share * 100, digits)
    if share < 1 and value >= 100:
        value = 100 - smallest
    elif share > 0 and value <= 0:
        value = smallest
    return f"{value:.{digits}f}%"


def shares(parts: Mapping[str, float], digits: int = 1) -> dict[str, str]:
    """Each part's share of their sum, largest first; the texts add up to exactly 100 % (largest remainder)."""
    whole = sum(parts.values())
    if whole <= 0:
        return {}
    steps = 100 * 10**digits
    exact = {name: value * steps / whole for name, value in parts.items() if value > 0}
    floors = {name: int(value) for name, value in exact.items()}
    left = steps - sum(floors.values())
    by_remainder = sorted(exact, key=lambda name: (floors[name] - exact[name], name))
    for name in by_remainder[:left]:
        floors[name] += 1
    ordered = sorted(floors, key=lambda name: (-floors[name], name))
    return {name: f"{floors[name] / 10**digits:.{digits}f}%" for name in ordered}


def duration(microseconds: float | None) -> str:
    """`450µs`, `4.2ms`, `42ms`, `1.2s`."""
    if microseconds is None:
        return NONE
    if microseconds < 999.5:
        return f"{microseconds:.0f}µs"
    milliseconds = microseconds / 1000
    if milliseconds < 9.95:
        return f"{milliseconds:.1f}ms"
    return f"{milliseconds:.0f}ms" if milliseconds < 999.5 else f"{milliseconds / 1000:.1f}s"


def rate(count: float, seconds: float) -> str:
    """`12.5`: so many a second."""
    return f"{count / seconds:.1f}"


def size(count: float) -> str:
    """`1.5kB`, in powers of 1000."""
    value, unit = count, _UNITS[0]
    for unit in _UNITS:
        if value < 999.5 or unit == _UNITS[-1]:
            break
        value /= 1000
    return f"{value:.0f}{unit}" if unit == "B" or value >= 99.5 else f"{value:.1f}{unit}"
