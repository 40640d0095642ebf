"""Prometheus metrics of the CA. Labels are closed vocabularies: reasons, never names of objects."""

from typing import Final

from prometheus_client import Counter, Gauge

ISSUED: Final = Counter("autotls_identity_issued", "Certificates issued and written, by reason", ["reason"])
FAILURES: Final = Counter(
    "autotls_identity_failures", "Work that failed and will be tried again, by reason", ["reason"]
)
REMOVED: Final = Counter("autotls_identity_removed", "Identities removed because nothing needs them")
HELD: Final = Gauge("autotls_identity_held", "Identities that are valid and kept")
FOREIGN: Final = Gauge("autotls_identity_foreign", "Objects of our names that are not ours and were left alone")
LEAF_NOT_AFTER: Final = Gauge("autotls_identity_leaf_not_after_min_seconds", "Unix time at which the first leaf ends")
QUEUE_DEPTH: Final = Gauge("autotls_identity_queue_depth", "Objects that wait to be looked at or are being looked at")
ROOT_NOT_AFTER: Final = Gauge("autotls_ca_root_not_after_seconds", "Unix time at which the signing root ends")
ISSUER_NOT_AFTER: Final = Gauge("autotls_ca_issuer_not_after_seconds", "Unix time at which the issuer ends")
SERVING_NOT_AFTER: Final = Gauge(
    "autotls_ca_serving_not_after_seconds", "Unix time at which a serving certificate ends", ["service"]
)
ROOTS: Final = Gauge("autotls_ca_roots", "Roots that are trusted now")
AUTHORITY_FAULT: Final = Gauge("autotls_ca_authority_fault", "1 while the Secret of root or issuer is unusable")
ROOTS_MADE: Final = Counter("autotls_ca_roots_made", "Roots made by this process")
ISSUERS_MADE: Final = Counter("autotls_ca_issuers_made", "Issuers made by this process")
