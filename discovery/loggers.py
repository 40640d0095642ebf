"""The proxies' loggers of single requests and connections, to the sink in discovery.

One tells everything, and only while somebody taps; the bootstrap has the same for the listeners that are there without
discovery (proxy/bootstrap.yaml.in). The other tells of meshed peers that were reached in plaintext
(discovery.fallbacks).
"""

from functools import lru_cache
from typing import Final

from discovery import accesslog
from discovery.api import (
    Message,
    accesslog_pb2,
    cel_pb2,
    config_source_pb2,
    custom_tag_pb2,
    duration_pb2,
    grpc_loggers_pb2,
    grpc_service_pb2,
    percent_pb2,
)
from discovery.own import TAP
from discovery.tls import packed
from mesh import series
from mesh.reasons import Plaintext

# The bootstrap's cluster of the control plane.
CLUSTER: Final = "discovery"
# What the sink knows our entries by.
TAP_LOG: Final = "tap"
FALLBACK_LOG: Final = "fallback"
# Of a million HTTP requests, those that are looked at for a fallback: looking costs the proxy 5 us. Connections, which
# are fewer and cost more, are all looked at.
FALLBACK_SAMPLE: Final = 100_000
# How long an entry may wait in the proxy for others; a full buffer (16 kB, Envoy's default) goes at once.
FLUSH: Final = duration_pb2.Duration(nanos=500_000_000)

_TAGS: Final = {
    accesslog.TAG_TLS: "%UPSTREAM_TLS_VERSION%",
    accesslog.TAG_PEER: "%UPSTREAM_PEER_URI_SAN%",
    accesslog.TAG_REASON: f"%UPSTREAM_METADATA({series.METADATA}:{series.REASON})%",
}
_HTTP_TAGS: Final = {
    accesslog.TAG_METHOD: "%REQ(:METHOD):64%",
    accesslog.TAG_PATH: f"%REQ(:PATH):{accesslog.MAX_FIELD}%",
}


@lru_cache(maxsize=1)
def http_tap() -> Message:
    """Requests of an outbound listener."""
    config = grpc_loggers_pb2.HttpGrpcAccessLogConfig(common_config=common(TAP_LOG, _TAGS | _HTTP_TAGS))
    return accesslog_pb2.AccessLog(
        name="envoy.access_loggers.http_grpc", filter=_while_tapped(), typed_config=packed(config)
    )


@lru_cache(maxsize=1)
def tcp_tap() -> Message:
    """Connections of an outbound listener."""
    config = grpc_loggers_pb2.TcpGrpcAccessLogConfig(common_config=common(TAP_LOG, _TAGS))
    return accesslog_pb2.AccessLog(
        name="envoy.access_loggers.tcp_grpc", filter=_while_tapped(), typed_config=packed(config)
    )


@lru_cache(maxsize=1)
def http_fallback() -> Message:
    """Some of the requests that reached a meshed peer in plaintext."""
    filters = [_sampled("autotls.fallback", FALLBACK_SAMPLE), _fell_back()]
    config = grpc_loggers_pb2.HttpGrpcAccessLogConfig(common_config=common(FALLBACK_LOG, _TAGS))
    return accesslog_pb2.AccessLog(
        name="envoy.access_loggers.http_grpc",
        filter=accesslog_pb2.AccessLogFilter(and_filter=accesslog_pb2.AndFilter(filters=filters)),
        typed_config=packed(config),
    )


@lru_cache(maxsize=1)
def tcp_fallback() -> Message:
    """Every connection that reached a meshed peer in plaintext."""
    config = grpc_loggers_pb2.TcpGrpcAccessLogConfig(common_config=common(FALLBACK_LOG, _TAGS))
    return accesslog_pb2.AccessLog(
        name="envoy.access_loggers.tcp_grpc", filter=_fell_back(), typed_config=packed(config)
    )


def _fell_back() -> Message:
    """By the endpoint's metadata, as the statistics. Where that is missing the expression fails, and nothing passes."""
    reason = f"xds.upstream_host_metadata.filter_metadata['{series.METADATA}']['{series.REASON}']"
    expression = cel_pb2.ExpressionFilter(expression=f"{reason} == '{Plaintext.TLS_FAILED.value}'")
    return accesslog_pb2.AccessLogFilter(
        extension_filter=accesslog_pb2.ExtensionFilter(
            name="envoy.access_loggers.extension_filters.cel", typed_config=packed(expression)
        )
    )


def common(log_name: str, tags: dict[str, str]) -> Message:
    """What the loggers of one log have in common; `tags` are format strings."""
    return grpc_loggers_pb2.CommonGrpcAccessLogConfig(
        log_name=log_name,
        transport_api_version=config_source_pb2.V3,
        grpc_service=grpc_service_pb2.GrpcService(
            envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=CLUSTER)
        ),
        buffer_flush_interval=FLUSH,
        custom_tags=[custom_tag_pb2.CustomTag(tag=key, value=text) for key, text in tags.items()],
    )


def _while_tapped() -> Message:
    """Passes as many of a million as the runtime key says; without the key none."""
    return _sampled(TAP, 0)


def _sampled(key: str, default: int) -> Message:
    """Passes as many of a million as the runtime key says, else as many as `default`."""
    return accesslog_pb2.AccessLogFilter(
        runtime_filter=accesslog_pb2.RuntimeFilter(
            runtime_key=key,
            percent_sampled=percent_pb2.FractionalPercent(
                numerator=default, denominator=percent_pb2.FractionalPercent.MILLION
            ),
            # Else a client could choose by its x-request-id whether it is seen.
            use_independent_randomness=True,
        )
    )
