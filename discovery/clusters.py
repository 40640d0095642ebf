"""The Envoy cluster of one Service port or pod port."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from discovery.api import (
    Message,
    circuit_breaker_pb2,
    cluster_pb2,
    config_source_pb2,
    duration_pb2,
    extension_pb2,
    http_protocol_options_pb2,
    outlier_detection_pb2,
    percent_pb2,
    preserve_case_pb2,
    protocol_pb2,
    struct_pb2,
    wrappers_pb2,
)
from discovery.protocols import Protocol
from discovery.tls import MATCH_KEY, MATCH_VALUE, Mode, packed, upstream_tls

# Short, because a NetworkPolicy that forgets 15108 drops packets: the fallback starts when this is over.
CONNECT_TIMEOUT_S: Final = {Mode.OPTIONAL: 1, Mode.STRICT: 5}
# How long a peer that could not be reached by TLS is left on plaintext before TLS is tried again.
RETRY_TLS_AFTER_S: Final = 5
RETRY_TLS_AT_MOST_S: Final = 60
_NO_LIMIT: Final = 4294967295
_HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def u32(value: int) -> Message:
    return wrappers_pb2.UInt32Value(value=value)


def build_cluster(name: str, identities: Iterable[str], mode: Mode, protocol: Protocol) -> Message:
    """A cluster whose endpoints decide one by one, by their metadata, whether they are dialled by TLS."""
    cluster = cluster_pb2.Cluster(
        name=name,
        # A dot would end the cluster's name in the label that Envoy makes of it: pods' names hold addresses.
        alt_stat_name=name.replace(".", "_") if "." in name else "",
        type=cluster_pb2.Cluster.EDS,
        eds_cluster_config=cluster_pb2.Cluster.EdsClusterConfig(eds_config=_ads()),
        connect_timeout=duration_pb2.Duration(seconds=CONNECT_TIMEOUT_S[mode]),
        lb_policy=cluster_pb2.Cluster.ROUND_ROBIN,
        circuit_breakers=_no_limits(),
        typed_extension_protocol_options={_HTTP_OPTIONS: _http_options()},
        common_lb_config=_balancing(),
        transport_socket_matches=[
            cluster_pb2.Cluster.TransportSocketMatch(
                name=MATCH_VALUE,
                match=struct_pb2.Struct(fields={MATCH_KEY: struct_pb2.Value(string_value=MATCH_VALUE)}),
                transport_socket=upstream_tls(identities, mode),
            )
        ],
    )
    if mode is Mode.OPTIONAL and protocol in FAILURES:
        cluster.outlier_detection.CopyFrom(_fall_back(FAILURES[protocol]))
    return cluster


def _ads() -> Message:
    return config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(),
        resource_api_version=config_source_pb2.V3,
        initial_fetch_timeout=duration_pb2.Duration(seconds=1),
    )


def _no_limits() -> Message:
    # Envoy's default (1,024) would refuse what works without a mesh.
    limits = circuit_breaker_pb2.CircuitBreakers.Thresholds(
        max_connections=u32(_NO_LIMIT),
        max_pending_requests=u32(_NO_LIMIT),
        max_requests=u32(_NO_LIMIT),
        max_retries=u32(_NO_LIMIT),
    )
    return circuit_breaker_pb2.CircuitBreakers(thresholds=[limits])


def _balancing() -> Message:
    return cluster_pb2.Cluster.CommonLbConfig(
        healthy_panic_threshold=percent_pb2.Percent(value=PANIC_PERCENT),
        # The default gathers changes for a second; an ejected peer must be seen at once, or the retries miss it.
        update_merge_window=duration_pb2.Duration(),
    )


# Above zero, so that when every address of every priority has failed they are all tried again, as kube-proxy would;
# at zero Envoy would answer "no healthy upstream" until the first ejection ends. While any address is left this never
# sets in, because the endpoints' overprovisioning factor keeps the total health at 100 %.
PANIC_PERCENT: Final = 1


# How many failures in a row take an address out, so that the next priority (plaintext) is used. For bytes only a failed
# connect or handshake counts. For HTTP Envoy 1.40 also counts every stream that the peer ended early (the TODO in
# onUpstreamReset of source/common/router/router.cc), and that is the regular end of each WebSocket: after one, all
# requests would be plaintext for 5 s and longer. Every new request starts the count anew, so a few in a row are rare.
# Where WebSockets are declared nothing is taken out: each request finds its own way to the next priority (the retries
# of listeners.py), at the price of a failed attempt. docs/adr/0026-websockets-and-the-fallback.md
FAILURES: Final = {Protocol.TCP: 1, Protocol.HTTP: 5, Protocol.DETECTED: 5}


@lru_cache(maxsize=len(FAILURES))
def _fall_back(failures: int) -> Message:
    """Answers of the app, 5xx included, never count."""
    return outlier_detection_pb2.OutlierDetection(
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=u32(failures),
        enforcing_consecutive_local_origin_failure=u32(100),
        interval=duration_pb2.Duration(seconds=1),
        base_ejection_time=duration_pb2.Duration(seconds=RETRY_TLS_AFTER_S),
        max_ejection_time=duration_pb2.Duration(seconds=RETRY_TLS_AT_MOST_S),
        max_ejection_percent=u32(100),
        enforcing_consecutive_5xx=u32(0),
        enforcing_consecutive_gateway_failure=u32(0),
        enforcing_success_rate=u32(0),
        enforcing_local_origin_success_rate=u32(0),
        enforcing_failure_percentage=u32(0),
    )


@lru_cache(maxsize=1)
def preserve_case() -> Message:
    """Header names as they were written; HTTP/1 codecs lower them otherwise, and some old servers care."""
    return protocol_pb2.Http1ProtocolOptions.HeaderKeyFormat(
        stateful_formatter=extension_pb2.TypedExtensionConfig(
            name="envoy.http.stateful_header_formatters.preserve_case",
            typed_config=packed(preserve_case_pb2.PreserveCaseFormatterConfig()),
        )
    )


@lru_cache(maxsize=1)
def _http_options() -> Message:
    """HTTP/1 or HTTP/2 upstream, whichever the client speaks."""
    return packed(
        http_protocol_options_pb2.HttpProtocolOptions(
            common_http_protocol_options=protocol_pb2.HttpProtocolOptions(
                idle_timeout=duration_pb2.Duration(seconds=60), max_headers_count=u32(4096)
            ),
            use_downstream_protocol_config=http_protocol_options_pb2.HttpProtocolOptions.UseDownstreamHttpConfig(
                http_protocol_options=protocol_pb2.Http1ProtocolOptions(
                    header_key_format=preserve_case(), allow_custom_methods=True, allow_chunked_length=True
                ),
                http2_protocol_options=protocol_pb2.Http2ProtocolOptions(max_concurrent_streams=u32(2147483647)),
            ),
        )
    )
