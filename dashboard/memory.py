"""What proxies counted, kept small: the scrapes of a window for every proxy, and the last minutes of every trend.

Hundreds of proxies have the same series, since a series names the server and not the client; so each name is kept once,
and a scrape is a tuple of references and an array of numbers. Pure.
"""

from array import array
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from telemetry.window import Scrape

# Ten minutes of values, one every five seconds.
TREND_LENGTH: Final = 120


@dataclass(frozen=True, slots=True)
class _Packed:
    at: float
    keys: tuple[bytes, ...]
    values: "array[float]"

    def unpacked(self) -> Scrape:
        return Scrape(self.at, dict(zip(self.keys, self.values, strict=True)))


class Scrapes:
    """The newest scrapes of each proxy, enough to look back `window_s` seconds."""

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._kept: dict[str, deque[_Packed]] = {}
        self._names: dict[bytes, bytes] = {}

    def add(self, proxy: str, at: float, samples: Mapping[bytes, float]) -> None:
        """`proxy` tells proxies apart: a pod's uid, since a pod of the same name may follow it."""
        kept = self._kept.setdefault(proxy, deque())
        keys = tuple(samples)
        # Mostly the series are those of the time before, in the same order: then even the tuple is shared.
        if kept and kept[-1].keys == keys:
            keys = kept[-1].keys
        else:
            keys = tuple(self._names.setdefault(key, key) for key in keys)
        kept.append(_Packed(at, keys, array("d", samples.values())))
        # One that is older than the window stays, to count from.
        while len(kept) > 2 and kept[1].at <= at - self.window_s:
            kept.popleft()

    def keep(self, proxies: Iterable[str]) -> None:
        """Forgets all others, and the names of series that nobody has any more."""
        wanted = set(proxies)
        for proxy in [proxy for proxy in self._kept if proxy not in wanted]:
            del self._kept[proxy]
        used = {key for kept in self._kept.values() for packed in kept for key in packed.keys}
        if len(used) < len(self._names):
            self._names = {key: key for key in used}

    @property
    def series(self) -> int:
        """How many different names are kept."""
        return len(self._names)

    def window(self, proxy: str, now: float) -> tuple[Scrape | None, Scrape] | None:
        """The scrapes at both ends of the window; the first is None after only one. None without a current one."""
        kept = self._kept.get(proxy)
        if not kept or kept[-1].at < now - self.window_s:
            return None
        newest = kept[-1].unpacked()
        return (kept[0].unpacked(), newest) if len(kept) > 1 else (None, newest)


class Trends:
    """The last values of each name; a name that had none for as long as is remembered is forgotten.

    Where a name has no value now, it gets a zero, or with `hold` its last one again.
    """

    def __init__(self, length: int = TREND_LENGTH, *, hold: bool = False) -> None:
        self._length, self._hold = length, hold
        self._values: dict[str, array[float]] = {}
        self._idle: dict[str, int] = {}

    def add(self, values: Mapping[str, float]) -> None:
        """One value more for each name."""
        for name in self._values.keys() | values.keys():
            kept = self._values.setdefault(name, array("f"))
            kept.append(values.get(name, kept[-1] if self._hold and kept else 0.0))
            if len(kept) > self._length:
                del kept[0]
            self._idle[name] = 0 if name in values else self._idle.get(name, 0) + 1
            if self._idle[name] >= self._length:
                del self._values[name], self._idle[name]

    def of(self, name: str) -> tuple[float, ...]:
        return tuple(self._values.get(name, ()))


class History:
    """The trends that the pages draw: requests per second, and the share of mutual TLS while there was traffic."""

    def __init__(self) -> None:
        self.rates = Trends()
        self.shares = Trends(hold=True)
