"""What the pages show, as values: made by `dashboard.summary` from the proxies' numbers, drawn by `dashboard.pages`."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Security(StrEnum):
    """How much of what was seen was mutual TLS; each has a colour, a line and a word of its own on the page."""

    TLS = "tls"
    MIXED = "mixed"
    PLAINTEXT = "plaintext"
    UNKNOWN = "unknown"

    @classmethod
    def of(cls, share: float | None) -> "Security":
        """Of a share from 0 to 1; None when nothing was seen."""
        if share is None:
            return cls.UNKNOWN
        if share >= 1:
            return cls.TLS
        return cls.MIXED if share > 0 else cls.PLAINTEXT


@dataclass(frozen=True, slots=True)
class Figures:
    """The columns of `autotls stat`. Shares are from 0 to 1, latencies in microseconds; None: no meaning, shown as `-`.

    `unseen` is the mark of `stat`: inbound plaintext of these pods does not pass their proxies and is not counted.
    """

    meshed: int = 0
    pods: int = 0
    success: float | None = None
    rps: float | None = None
    p50_us: float | None = None
    p95_us: float | None = None
    p99_us: float | None = None
    tls: float | None = None
    unseen: bool = False
    # Reason of plaintext -> its share of everything seen.
    reasons: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Workload:
    """One workload; `key` is `namespace/kind/name`. Trends are the last minutes, oldest first, one value a scrape."""

    key: str
    namespace: str
    kind: str
    name: str
    figures: Figures
    rps_trend: tuple[float, ...] = ()
    tls_trend: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class NamespaceRow:
    """The workloads of one namespace together."""

    name: str
    figures: Figures


@dataclass(frozen=True, slots=True)
class Edge:
    """Who talks to whom: keys of workloads, or what stands for them (an address, `node`).

    `rate` is requests per second for HTTP and connections otherwise, both together.
    """

    client: str
    server: str
    client_identity: str = ""
    server_identity: str = ""
    tls: float | None = None
    rate: float | None = None
    reasons: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate as its holder reports it. `lifetime_s` is what the installation is configured to issue."""

    role: str
    subject: str
    not_after: datetime
    lifetime_s: float
    holders: int = 1

    def left(self, now: datetime) -> float:
        """The share of its life that is left, from 0 to 1."""
        return min(1.0, max(0.0, (self.not_after - now).total_seconds() / self.lifetime_s))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that the pages show, at one moment. `notes` are the footnotes: what could not be seen, and why."""

    taken_at: datetime
    window_s: float
    mesh: Figures
    workloads: tuple[Workload, ...] = ()
    namespaces: tuple[NamespaceRow, ...] = ()
    edges: tuple[Edge, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    notes: tuple[str, ...] = ()
    rps_trend: tuple[float, ...] = ()
    tls_trend: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """A finding of a check: a verdict (`ok`, `warn`, `fail`, `skip`), about what, and what to do."""

    verdict: str
    subject: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """A check and its outcome, under the heading of its section."""

    section: str
    id: str
    description: str
    verdict: str
    message: str = ""
    hint: str = ""
    findings: tuple[Found, ...] = ()
