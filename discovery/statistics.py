"""What the proxies count: access loggers that turn each request or connection into labelled series (mesh.series)."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from discovery.api import Message, accesslog_pb2, any_pb2, stats_pb2, wrappers_pb2
from discovery.wire import field, number_field
from mesh import series

# Characters of an authority: what is longer is no name of a host (RFC 1035 2.3.4 allows 255) and costs as much memory
# as whoever asks likes.
MAX_AUTHORITY: Final = 64

_FORMATS: Final = {
    series.DIR: series.OUTBOUND,
    series.TLS: "%UPSTREAM_TLS_VERSION%",
    series.PEER: "%UPSTREAM_PEER_URI_SAN%",
    # RAW: not the alt_stat_name, which has no dots.
    series.SVC: "%UPSTREAM_CLUSTER_RAW%",
    series.DST: f"%UPSTREAM_METADATA({series.METADATA}:{series.DST})%",
    series.REASON: f"%UPSTREAM_METADATA({series.METADATA}:{series.REASON})%",
    series.AUTHORITY: f"%REQ(:AUTHORITY):{MAX_AUTHORITY}%",
    series.GRPC: "%GRPC_STATUS_NUMBER%",
}
_HTTP: Final = {**_FORMATS, series.PROTO: "%PROTOCOL%", series.CODE: "%RESPONSE_CODE%"}
_TCP: Final = {**_FORMATS, series.PROTO: "TCP", series.CODE: "%RESPONSE_FLAGS%"}
# Values and units of those that are histograms; the others count by one.
_HISTOGRAMS: Final = {
    series.REQUEST_US: ("%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%", stats_pb2.Config.Histogram.Microseconds),
    series.CONNECTION_MS: ("%DURATION%", stats_pb2.Config.Histogram.Milliseconds),
}


@lru_cache(maxsize=1)
def http_statistics() -> tuple[Message, ...]:
    """Requests by outcome, and their durations by outcome and authority."""
    return (
        _logger(series.OUTBOUND_HTTP, _HTTP, "traffic"),
        _logger(series.OUTBOUND_HTTP_BY_AUTHORITY, _HTTP, "authority"),
    )


@lru_cache(maxsize=1)
def tcp_statistics() -> tuple[Message, ...]:
    """Ended connections by outcome, and their life."""
    return (_logger(series.OUTBOUND_TCP, _TCP, "traffic"),)


def _logger(tables: Mapping[str, tuple[str, ...]], formats: Mapping[str, str], scope: str) -> Message:
    config = stats_pb2.Config()
    for name, labels in tables.items():
        stat = _stat(name, labels, formats)
        if name in _HISTOGRAMS:
            value, unit = _HISTOGRAMS[name]
            config.histograms.add(stat=stat, unit=unit, value_format=value)
        else:
            config.counters.add(stat=stat, value_fixed=wrappers_pb2.UInt64Value(value=1))
    packed = any_pb2.Any(
        type_url=f"type.googleapis.com/{stats_pb2.Config.DESCRIPTOR.full_name}",
        value=config.SerializeToString(deterministic=True) + _scope(scope),
    )
    return accesslog_pb2.AccessLog(name="envoy.access_loggers.stats", typed_config=packed)


def _stat(name: str, labels: Iterable[str], formats: Mapping[str, str]) -> Message:
    tags = [stats_pb2.Config.Tag(name=label, value_format=formats[label]) for label in labels]
    return stats_pb2.Config.Stat(name=name, tags=tags)


def _scope(name: str) -> bytes:
    """`stats_scope` of a logger: the prefix of its series and how many there can be, for all loggers with that scope.

    xds-protos 1.85.0 does not know the field (6 of Config, and envoy/type/v3/scope.proto, in Envoy 1.40.0), so it is
    written by hand. tests/discovery/test_resources.py fails once the package knows it.
    """
    limit = series.LIMITS[name]
    return field(
        6,
        field(1, number_field(1, limit.counters))
        + field(3, number_field(1, limit.histograms))
        + number_field(4, 1)  # enable_eviction: a peer that is gone gives its series back
        + field(5, series.SCOPE.encode())
        + field(6, name.encode()),  # sharing_name: without it each listener has limits of its own
    )
