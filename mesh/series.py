"""The series that every proxy counts: their names and labels, the contract between who counts and who reads.

Written by discovery/statistics.py (outbound) and proxy/bootstrap.yaml.in (the rest), read by telemetry/. What each
label holds and how a reader uses it is in docs/telemetry.md; tests/mesh/test_series.py holds the writers to this file.
"""

from dataclasses import dataclass
from typing import Final

# What Envoy's Prometheus text puts before the names below (and the scope of the loggers, `autotls`).
EXPOSED: Final = "envoy_autotls_"
SCOPE: Final = "autotls"

# Counters: requests (HTTP) or ended connections (TCP), and bytes received from and sent to whoever opened them. What
# goes out through discovery's listeners has no bytes of these: its clusters count them anyway.
REQUESTS: Final = "rq"
RECEIVED: Final = "rx"
SENT: Final = "tx"
# Histograms: microseconds of a request, milliseconds of a connection's life.
REQUEST_US: Final = "rq_us"
CONNECTION_MS: Final = "cx_ms"
# Envoy's own counters of a cluster, by CLUSTER: bytes sent to and received from servers, while connections last.
CLUSTER_SENT: Final = "envoy_cluster_upstream_cx_tx_bytes_total"
CLUSTER_RECEIVED: Final = "envoy_cluster_upstream_cx_rx_bytes_total"
CLUSTER: Final = "envoy_cluster_name"

# Labels. An empty value and an absent label are the same.
DIR: Final = "dir"
OUTBOUND: Final = "outbound"
INBOUND: Final = "inbound"
PROTO: Final = "proto"
TLS: Final = "tls"
PEER: Final = "peer"
SVC: Final = "svc"
DST: Final = "dst"
REASON: Final = "reason"
CODE: Final = "code"
GRPC: Final = "grpc"
AUTHORITY: Final = "authority"
PORT: Final = "port"
SRC: Final = "src"

# `svc` of connections that no listener of discovery's took; their `dst` is the address and port that was dialled.
PASSTHROUGH: Final = "passthrough"

# The namespace of the endpoints' metadata that holds DST and REASON.
METADATA: Final = "autotls"

# Series → labels, by what is counted. A label costs the proxy 0.3 us a request under full load, and more at a slow pace
# (bench/statistics.py): each series has those that are read.
_OUTBOUND: Final = (DIR, TLS, SVC, DST, REASON, PROTO, PEER, CODE)
_INBOUND: Final = (DIR, TLS, PEER, PORT, PROTO, CODE)

OUTBOUND_HTTP: Final = {REQUESTS: (*_OUTBOUND, GRPC)}
# In a scope of its own: a client that asks for ten thousand hosts fills that, and the counter above stays whole. How
# many there were of each is how many durations.
OUTBOUND_HTTP_BY_AUTHORITY: Final = {REQUEST_US: (DIR, TLS, SVC, DST, REASON, AUTHORITY, CODE, GRPC)}
OUTBOUND_TCP: Final = {
    REQUESTS: _OUTBOUND,
    CONNECTION_MS: (DIR, SVC, DST, REASON),
}
# What passes through, to destinations that discovery configured nothing for; `svc` is PASSTHROUGH.
OUTBOUND_PASSTHROUGH: Final = {
    REQUESTS: (DIR, SVC, DST, PROTO, CODE),
    RECEIVED: (DIR, DST),
    SENT: (DIR, DST),
}
INBOUND_HTTP: Final = {
    REQUESTS: (*_INBOUND, GRPC),
    RECEIVED: (DIR, PEER, PORT),
    SENT: (DIR, PEER, PORT),
    REQUEST_US: (DIR, PEER, PORT),
}
INBOUND_TCP: Final = {
    REQUESTS: _INBOUND,
    RECEIVED: (DIR, PEER, PORT),
    SENT: (DIR, PEER, PORT),
    CONNECTION_MS: (DIR, PEER, PORT),
}
INBOUND_PLAINTEXT: Final = {
    REQUESTS: (DIR, SRC, PORT, PROTO, CODE),
    RECEIVED: (DIR, SRC, PORT),
    SENT: (DIR, SRC, PORT),
}


@dataclass(frozen=True, slots=True)
class Limit:
    """How many series there can be, all loggers of a proxy together."""

    counters: int
    histograms: int = 0


# By Envoy's scope. Beyond it new series are dropped, and each attempt is counted since the proxy's start; a series that
# nothing counts for stats_eviction_interval (300 s) to twice that gives its place back.
LIMITS: Final = {
    "traffic": Limit(4000, 500),
    "authority": Limit(0, 1000),
    "passthrough": Limit(1500),
    "observed": Limit(1500),
}
DROPPED_COUNTERS: Final = "envoy_server_stats_overflow_counter"
DROPPED_HISTOGRAMS: Final = "envoy_server_stats_overflow_histogram"
