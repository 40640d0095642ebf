"""What the proxies count: one access logger that turns each request or connection into labelled counters.

The labels are the contract with `stat`, `edges` and `check`: dir, proto, tls (the upstream's TLS version, empty for
plaintext), peer (its verified SPIFFE ID), svc (the cluster: `namespace/service:port` or `pod/address:port`), reason (of
plaintext, empty for TLS; see mesh.reasons), code.
"""

from functools import lru_cache
from typing import Final

from discovery.api import Message, accesslog_pb2, any_pb2, stats_pb2, wrappers_pb2
from discovery.wire import field, number_field

# The namespace of the endpoints' metadata that statistics read.
METADATA: Final = "autotls"
REASON: Final = "reason"
PREFIX: Final = "autotls"
MAX_COUNTERS: Final = 2000
MAX_HISTOGRAMS: Final = 500

_COMMON: Final = {
    "dir": "outbound",
    "tls": "%UPSTREAM_TLS_VERSION%",
    "peer": "%UPSTREAM_PEER_URI_SAN%",
    # RAW: not the alt_stat_name, which has no dots.
    "svc": "%UPSTREAM_CLUSTER_RAW%",
    "reason": f"%UPSTREAM_METADATA({METADATA}:{REASON})%",
}


def _stat(name: str, tags: dict[str, str]) -> Message:
    return stats_pb2.Config.Stat(
        name=name, tags=[stats_pb2.Config.Tag(name=key, value_format=value) for key, value in tags.items()]
    )


@lru_cache(maxsize=1)
def http_statistics() -> Message:
    """Requests by outcome, and their duration in microseconds."""
    tags = {**_COMMON, "proto": "%PROTOCOL%", "authority": "%REQ(:AUTHORITY)%"}
    counters = [
        stats_pb2.Config.Counter(
            stat=_stat("rq", {**tags, "code": "%RESPONSE_CODE%"}), value_fixed=wrappers_pb2.UInt64Value(value=1)
        )
    ]
    duration = stats_pb2.Config.Histogram(
        stat=_stat("rq_us", tags),
        unit=stats_pb2.Config.Histogram.Microseconds,
        value_format="%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
    )
    return _logger(stats_pb2.Config(counters=counters, histograms=[duration]))


@lru_cache(maxsize=1)
def tcp_statistics() -> Message:
    """Connections by outcome, their bytes, and their life in milliseconds."""
    tags = {**_COMMON, "proto": "TCP"}
    counters = [
        stats_pb2.Config.Counter(
            stat=_stat("rq", {**tags, "code": "%RESPONSE_FLAGS%"}), value_fixed=wrappers_pb2.UInt64Value(value=1)
        ),
        stats_pb2.Config.Counter(stat=_stat("rx", tags), value_format="%BYTES_RECEIVED%"),
        stats_pb2.Config.Counter(stat=_stat("tx", tags), value_format="%BYTES_SENT%"),
    ]
    life = stats_pb2.Config.Histogram(
        stat=_stat("cx_ms", tags), unit=stats_pb2.Config.Histogram.Milliseconds, value_format="%DURATION%"
    )
    return _logger(stats_pb2.Config(counters=counters, histograms=[life]))


def _logger(config: Message) -> Message:
    packed = any_pb2.Any(
        type_url=f"type.googleapis.com/{stats_pb2.Config.DESCRIPTOR.full_name}",
        value=config.SerializeToString(deterministic=True) + _scope(),
    )
    return accesslog_pb2.AccessLog(name="envoy.access_loggers.stats", typed_config=packed)


def _scope() -> bytes:
    """`stats_scope` of the logger: the prefix of its series, and how many there can be.

    xds-protos 1.85.0 does not know the field (6 of Config, and envoy/type/v3/scope.proto, in Envoy 1.40.0), so it is
    written by hand. tests/discovery/test_resources.py fails once the package knows it.
    """
    return field(
        6,
        field(1, number_field(1, MAX_COUNTERS))
        + field(3, number_field(1, MAX_HISTOGRAMS))
        + number_field(4, 1)  # enable_eviction: a peer that is gone gives its series back
        + field(5, PREFIX.encode()),
    )
