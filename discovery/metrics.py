"""Prometheus metrics of discovery; one process, so module-wide."""

from typing import Final

from prometheus_client import Counter, Gauge

STREAMS: Final = Gauge("autotls_discovery_streams", "Proxies that are connected")
STREAMS_OPENED: Final = Counter("autotls_discovery_streams_opened", "Streams opened by an authenticated proxy")
REFUSED: Final = Counter("autotls_discovery_refused_streams", "Streams refused, by reason", ["reason"])
REJECTED: Final = Counter("autotls_discovery_rejected_resources", "Answers a proxy rejected (NACK), by type", ["type"])
PUSHED: Final = Counter("autotls_discovery_pushed_bytes", "Bytes of answers handed to gRPC")
CHANGES: Final = Counter("autotls_discovery_changes", "Resources that changed, by type", ["type"])
RESOURCES: Final = Gauge("autotls_discovery_resources", "Resources ready to be sent, by type", ["type"])
OBJECTS: Final = Gauge("autotls_discovery_objects", "Objects known, by kind (pods, meshed_pods, services)", ["kind"])
STALE: Final = Gauge("autotls_discovery_stale_objects", "Objects changed and not yet worked off")
UNSUPPORTED: Final = Gauge(
    "autotls_discovery_unsupported_service", "1 for each Service left to kube-proxy", ["namespace", "service", "reason"]
)
SINK_STREAMS: Final = Gauge("autotls_discovery_access_log_streams", "Access-log streams that are open")
SINK_REFUSED: Final = Counter(
    "autotls_discovery_refused_access_log_streams", "Access-log streams refused, by reason", ["reason"]
)
SINK_ENTRIES: Final = Counter(
    "autotls_discovery_access_log_entries",
    "Access-log entries by fate (read; lost: came too fast; unwanted: nobody asked)",
    ["fate"],
)
TAPS: Final = Gauge("autotls_discovery_taps", "Open sessions of `autotls tap`")
TAPS_REFUSED: Final = Counter("autotls_discovery_refused_taps", "Taps refused, by HTTP status", ["status"])
FALLBACKS: Final = Gauge(
    "autotls_discovery_plaintext_to_meshed",
    "1 for each client and meshed server (namespace/kind/name) between which plaintext was seen in the last 10 minutes",
    ["client", "server"],
)
CERTIFICATE_LOADS: Final = Counter(
    "autotls_discovery_certificate_loads", "Serving certificate files taken up or refused", ["outcome"]
)
CERTIFICATE_NOT_AFTER: Final = Gauge(
    "autotls_discovery_certificate_not_after_seconds", "End of the serving certificate's life, Unix time"
)


def short(type_url: str) -> str:
    """`Cluster` for the type URL of a cluster: a label's value."""
    return type_url.rpartition(".")[2]
