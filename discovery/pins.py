"""Which identities a cluster accepts, while ServiceAccounts come and go behind a Service.

A proxy takes up a changed cluster and changed endpoints one after the other. So an identity that joins is accepted
first and its endpoints follow SETTLE_S later; one that leaves is accepted until LINGER_S after its last endpoint.
Otherwise a good peer would be refused in between: plaintext in optional mode, a failed request in strict.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

# Seconds. One push reaches the last of 1,000 proxies within half a second (bench/discovery.py).
SETTLE_S: Final = 1.0
# Seconds; longer than a proxy takes to drain (5) and to hear of the change.
LINGER_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Pin:
    """Accepted; endpoints follow from `usable_at` on; `leaves_at` is set once the last endpoint is gone."""

    usable_at: float
    leaves_at: float | None = None


Pins = Mapping[str, Pin]
NO_PINS: Final[Pins] = {}


def update(pins: Pins, present: frozenset[str], now: float) -> Pins:
    """The pins once exactly the identities `present` are behind the Service; `now` in seconds that only grow.

    The last identities stay when nobody is present: a cluster without a pin would accept any certificate.
    """
    fresh: dict[str, Pin] = {}
    for identity, pin in pins.items():
        if identity in present:
            fresh[identity] = Pin(pin.usable_at)
            continue
        leaves_at = now + LINGER_S if pin.leaves_at is None else pin.leaves_at
        if leaves_at > now or not present:
            fresh[identity] = Pin(pin.usable_at, leaves_at)
    # The cluster itself is new: nothing has to wait for an older one.
    usable_at = now + SETTLE_S if pins else now
    for identity in present - pins.keys():
        fresh[identity] = Pin(usable_at)
    return fresh


def usable(pins: Pins, now: float) -> frozenset[str]:
    """The identities whose endpoints may be sent."""
    return frozenset(identity for identity, pin in pins.items() if pin.usable_at <= now)


def next_change(pins: Pins, present: frozenset[str], now: float) -> float | None:
    """When `update` or `usable` will give something else by time alone; None: never."""
    times = [pin.usable_at for pin in pins.values() if pin.usable_at > now]
    if present:
        times += [pin.leaves_at for pin in pins.values() if pin.leaves_at is not None]
    return min(times, default=None)
