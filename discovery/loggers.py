"""The proxies' loggers of single requests and connections, to the sink in discovery.

Each tells everything while somebody taps, and at other times of meshed peers that were reached in plaintext
(discovery.fallbacks). The bootstrap has some for taps alone, of the listeners that are there without discovery
(proxy/bootstrap.yaml.in). One logger for both purposes: a second one is 5 kB of every listener in every proxy.
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
from discovery.endpoints import FALLBACK
from discovery.own import TAP
from discovery.tls import packed
from mesh import series

# The bootstrap's cluster of the control plane.
CLUSTER: Final = "discovery"
# What Envoy tells our streams apart by, and the bootstrap's the same.
LOG_NAME: Final = "tap"
# Of a million HTTP requests, those that are looked at for a fallback: looking costs the proxy 5 us. Connections, which
# are fewer and cost more, are all looked at.
FALLBACK_SAMPLE: Final = 100_000
# Nobody sets it (the runtime filter wants a key); not FALLBACK, which marks addresses.
_SAMPLE_KEY: Final = "autotls.fallback_sample"
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
    accesslog.TAG_GRPC: "%GRPC_STATUS_NUMBER%",
}


@lru_cache(maxsize=1)
def http_entries() -> Message:
    """Requests of an outbound listener."""
    config = grpc_loggers_pb2.HttpGrpcAccessLogConfig(common_config=_common(_TAGS | _HTTP_TAGS))
    some = accesslog_pb2.AndFilter(filters=[_sampled(_SAMPLE_KEY, FALLBACK_SAMPLE), _fell_back()])
    told = _either(_while_tapped(), accesslog_pb2.AccessLogFilter(and_filter=some))
    return accesslog_pb2.AccessLog(name="envoy.access_loggers.http_grpc", filter=told, typed_config=packed(config))


@lru_cache(maxsize=1)
def tcp_entries() -> Message:
    """Connections of an outbound listener."""
    config = grpc_loggers_pb2.TcpGrpcAccessLogConfig(common_config=_common(_TAGS))
    told = _either(_while_tapped(), _fell_back())
    return accesslog_pb2.AccessLog(name="envoy.access_loggers.tcp_grpc", filter=told, typed_config=packed(config))


def _either(*filters: Message) -> Message:
    return accesslog_pb2.AccessLogFilter(or_filter=accesslog_pb2.OrFilter(filters=filters))


def _fell_back() -> Message:
    """By the endpoint's metadata. Where there is no endpoint the expression fails, and nothing passes.

    Whether a key is there is half the memory of what it holds.
    """
    expression = cel_pb2.ExpressionFilter(expression=f"'{FALLBACK}' in xds.upstream_host_metadata.filter_metadata")
    return accesslog_pb2.AccessLogFilter(
        extension_filter=accesslog_pb2.ExtensionFilter(
            name="envoy.access_loggers.extension_filters.cel", typed_config=packed(expression)
        )
    )


def _common(tags: dict[str, str]) -> Message:
    """What the loggers have in common; `tags` are format strings."""
    return grpc_loggers_pb2.CommonGrpcAccessLogConfig(
        log_name=LOG_NAME,
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
