"""What a window showed: the ledger, how long was counted, and what could not be counted. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mesh import series
from telemetry.exposition import Samples, Series
from telemetry.flows import Flow, flows_of
from telemetry.ledger import Ledger, ledger
from telemetry.workloads import Inventory

_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class Measurement:
    """`seconds` were counted; each of `notes` is a sentence about what the numbers do not hold."""

    book: Ledger
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def cluster(self) -> Inventory:
        return self.book.cluster


def measurement(
    cluster: Inventory, counted: Mapping[str, Iterable[Series]], seconds: float, notes: Sequence[str] = ()
) -> Measurement:
    """From what each pod's proxy (`namespace/name`) counted in the window."""
    pods = {pod.key: pod for pod in cluster.pods}
    flows: list[Flow] = []
    for key, found in counted.items():
        if key in pods:
            flows.extend(flows_of(pods[key], found, cluster))
    return Measurement(ledger(flows, cluster), seconds, tuple(notes))


def is_truncated(samples: Samples) -> bool:
    """Whether the proxy had more to count than its limit of series allows, at any time since its start."""
    dropped = (series.DROPPED_COUNTERS.encode(), series.DROPPED_HISTOGRAMS.encode())
    return any(value > 0 and key.startswith(dropped) for key, value in samples.items())


def listed(words: Sequence[str]) -> str:
    """The first few, and how many there are besides."""
    shown = ", ".join(words[:_NAMED])
    return f"{shown} and {len(words) - _NAMED} more" if len(words) > _NAMED else shown
