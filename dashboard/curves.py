"""Small pictures of numbers over time, as the points of an SVG polyline."""

from collections.abc import Sequence
from typing import Final

WIDTH: Final = 120
HEIGHT: Final = 24
_MAX_POINTS: Final = 40


def thin(values: Sequence[float], most: int = _MAX_POINTS) -> tuple[float, ...]:
    """At most `most` values, each the mean of those it stands for; the newest are never merged with older groups."""
    if len(values) <= most:
        return tuple(values)
    size = -(-len(values) // most)
    first = len(values) % size
    groups = ([values[:first]] if first else []) + [values[at : at + size] for at in range(first, len(values), size)]
    return tuple(sum(group) / len(group) for group in groups)


def sparkline(values: Sequence[float], *, top: float | None = None) -> str:
    """`points` of a polyline in a box of WIDTH by HEIGHT, newest at the right edge; empty for fewer than two values.

    `top` is the value at the upper edge; without it, the largest.
    """
    few = thin(values)
    if len(few) < 2:
        return ""
    highest = top if top is not None else max(few)
    step = WIDTH / (_MAX_POINTS - 1)
    left = WIDTH - step * (len(few) - 1)
    scale = (HEIGHT - 3) / highest if highest > 0 else 0.0
    return " ".join(
        f"{left + step * index:.1f},{HEIGHT - 1.5 - min(value, highest) * scale:.1f}" for index, value in enumerate(few)
    )


def area(points: str) -> str:
    """The same line closed to the floor, for the tint below it."""
    if not points:
        return ""
    first, last = points.split(" ", 1)[0], points.rsplit(" ", 1)[-1]
    return f"{first.partition(',')[0]},{HEIGHT} {points} {last.partition(',')[0]},{HEIGHT}"
