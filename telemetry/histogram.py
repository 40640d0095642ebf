"""Durations in buckets, and the percentiles that buckets allow. Pure."""

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Histogram:
    """Cumulative buckets: `counts[i]` values were at most `bounds[i]`. Bounds ascend; the last one is infinite."""

    bounds: tuple[float, ...] = (math.inf,)
    counts: tuple[float, ...] = (0.0,)

    @classmethod
    def of(cls, buckets: Mapping[float, float]) -> "Histogram":
        """From upper bound to cumulative count, in any order.

        A missing infinite bound is as much as the largest one there is. Counts that shrink are lifted to the one before
        (scrapes are not atomic, as Prometheus' ensureMonotonicAndIgnoreSmallDeltas knows).
        """
        bounds = sorted(buckets)
        counts = list(accumulate((buckets[bound] for bound in bounds), max))
        if not bounds or not math.isinf(bounds[-1]):
            bounds.append(math.inf)
            counts.append(counts[-1] if counts else 0.0)
        return cls(tuple(bounds), tuple(counts))

    @property
    def total(self) -> float:
        return self.counts[-1]

    def plus(self, other: "Histogram") -> "Histogram":
        """Both together, at the bounds of both. Between its own bounds a histogram counts as its next lower one."""
        if self.bounds == other.bounds:
            return Histogram(self.bounds, tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)))
        if not self.total:
            return other
        if not other.total:
            return self
        bounds = sorted({*self.bounds, *other.bounds})
        return Histogram(tuple(bounds), tuple(self._at_most(bound) + other._at_most(bound) for bound in bounds))

    def _at_most(self, bound: float) -> float:
        index = bisect_right(self.bounds, bound)
        return self.counts[index - 1] if index else 0.0

    def quantile(self, q: float) -> float | None:
        """The value that a share `q` (0..1) of the values is not above; None without any value.

        As histogram_quantile of Prometheus: the bucket is found exactly, the place within it by a straight line. What
        is above the largest finite bound is told as that bound.
        """
        if not self.total:
            return None
        rank = q * self.total
        index = next(i for i, count in enumerate(self.counts) if count >= rank)
        upper = self.bounds[index]
        if math.isinf(upper):
            return self.bounds[index - 1] if index else None
        lower, below = (self.bounds[index - 1], self.counts[index - 1]) if index else (0.0, 0.0)
        inside = self.counts[index] - below
        return upper if not inside else lower + (upper - lower) * (rank - below) / inside
