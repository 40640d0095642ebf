"""Prometheus metrics of the webhook; process-wide, because one worker serves a process.

Children are bound once: `.labels()` on every request costs more than the increment.
"""

from functools import lru_cache
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

ADMISSIONS: Final = Counter(
    "autotls_webhook_admissions",
    "Answered reviews by result (injected, skipped, denied, failed, ignored) and reason",
    ["result", "reason"],
)
SECONDS: Final = Histogram(
    "autotls_webhook_admission_seconds",
    "From the first byte of a review to its answer, waiting for the rest of it included",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
FAULTS: Final = Counter(
    "autotls_webhook_faults", "Reviews that a fault of ours left unpatched (optional) or refused (strict)", ["type"]
)
REFUSED_REQUESTS: Final = Counter(
    "autotls_webhook_refused_requests", "Requests that were no readable review, by HTTP status", ["status"]
)
NAMESPACE_READS: Final = Counter(
    "autotls_webhook_namespace_reads", "Live reads of namespaces not mirrored yet, by outcome", ["outcome"]
)
CERTIFICATE_NOT_AFTER: Final = Gauge(
    "autotls_webhook_certificate_not_after_timestamp_seconds", "When the serving certificate expires (Unix time)"
)
CERTIFICATE_LOADS: Final = Counter(
    "autotls_webhook_certificate_loads", "Serving certificates loaded, by outcome (loaded, failed)", ["outcome"]
)


@lru_cache(maxsize=256)
def admissions(result: str, reason: str) -> Counter:
    """The counter of one result and reason."""
    return ADMISSIONS.labels(result, reason)
