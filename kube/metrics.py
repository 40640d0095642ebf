"""Prometheus metrics of everything that talks to the API server; process-wide, so that every client counts into one."""

from typing import Final

from prometheus_client import Counter, Gauge

REQUESTS: Final = Counter(
    "autotls_kube_requests", "Requests to the API server; status 0: no answer", ["verb", "status"]
)
RELISTS: Final = Counter("autotls_kube_relists", "Full lists of a resource, the first one included", ["resource"])
WATCH_RESTARTS: Final = Counter(
    "autotls_kube_watch_restarts", "Watches that ended, by cause (ended, expired, failed)", ["resource", "cause"]
)
UNDECODABLE: Final = Counter(
    "autotls_kube_undecodable_objects", "Objects that did not fit our projection and were left as known", ["resource"]
)
LEADER: Final = Gauge("autotls_kube_leader", "1 while this process holds the Lease and works", ["lease"])
LEADER_LOST: Final = Counter("autotls_kube_leader_lost", "Times the work was cancelled, by cause", ["lease", "cause"])
EVENTS: Final = Counter("autotls_kube_events", "Events by outcome (written, repeated, dropped, failed)", ["outcome"])
