"""What happened between two scrapes of one proxy, without the numbers that restarts and resets make up. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from telemetry.exposition import UPTIME, Samples

# The reported uptime is a whole number of seconds and as old as the last flush: at most 5 + 1 s less than the truth.
UPTIME_LAG_S: Final = 6.0

# Of a histogram, the three kinds of series and the label that tells its buckets apart.
_BUCKET: Final = b"_bucket{"
_SUFFIX: Final = re.compile(rb"_(?:bucket|sum|count)\{")
_BOUND: Final = re.compile(rb',?le="[^"]*"')


@dataclass(frozen=True, slots=True)
class Scrape:
    """One answer of a proxy; `at` in seconds, on a clock that only goes forward."""

    at: float
    samples: Samples


def increase(before: Scrape | None, after: Scrape, *, newborn: bool = False) -> dict[bytes, float] | None:
    """What was added to each counter, where anything was; None when it cannot be known.

    Of a histogram to which something was added all buckets are there, or its percentiles would lack their lower bounds.

    - A series that `before` has not yet: all of it was added. Envoy makes a series at its first use.
    - A series that is less than before was reset (evicted and made again): what it has now was added. Of a histogram
      this goes for all of its buckets together, else they would not add up.
    - A proxy that started in between: all that it has now was added; what it had counted before it ended is lost.
    - Without `before`, it is known only where the proxy started within the window: `newborn` says that its pod did not
      exist when the window began.
    """
    if before is None:
        return _added({}, after.samples) if newborn else None
    if restarted(before, after):
        return _added({}, after.samples)
    return _added(before.samples, after.samples)


def total(scrapes: Sequence[Scrape], *, newborn: bool = False) -> dict[bytes, float] | None:
    """The increase over several scrapes in order: what was evicted or lost between the outer two is in it."""
    added = increase(None, scrapes[0], newborn=True) if newborn and scrapes else None
    for before, after in pairwise(scrapes):
        added = added if added is not None else {}
        for key, value in (increase(before, after) or {}).items():
            added[key] = added.get(key, 0.0) + value
    return added


def restarted(before: Scrape, after: Scrape) -> bool:
    """Whether Envoy started anew between the scrapes, as far as its uptime can tell.

    A restart within seconds of the start before it may go unseen; series that are less than before show it all the
    same, and the others come out too low, never too high.
    """
    first, last = before.samples.get(UPTIME), after.samples.get(UPTIME)
    if first is None or last is None:
        return False
    return last < first or last - first < (after.at - before.at) - UPTIME_LAG_S


def _added(before: Samples, after: Samples) -> dict[bytes, float]:
    added: dict[bytes, float] = {}
    reset: set[bytes] = set()
    unchanged: list[bytes] = []
    for key, value in after.items():
        difference = value - before.get(key, 0.0)
        if difference > 0:
            added[key] = difference
        elif difference < 0:
            reset.add(_whole(key))
        elif _BUCKET in key:
            unchanged.append(key)
    added.pop(UPTIME, None)
    reset.discard(_whole(UPTIME))
    if reset:
        added |= {key: value for key, value in after.items() if value > 0 and _whole(key) in reset}
    moved = {_unbounded(key) for key in added if _BUCKET in key}
    return added | dict.fromkeys((key for key in unchanged if _unbounded(key) in moved), 0.0)


def _unbounded(key: bytes) -> bytes:
    """The same for all buckets of a histogram: Envoy writes the bound last."""
    return key[: key.rfind(b'le="')]


def _whole(key: bytes) -> bytes:
    """The same for all series of a histogram."""
    return _BOUND.sub(b"", _SUFFIX.sub(b"{", key, count=1))
