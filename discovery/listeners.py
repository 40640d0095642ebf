"""The Envoy listener of one Service port or pod port: never bound, only found by the original destination.

Nothing in it depends on the endpoints or on who is meshed: a listener that changes cuts its connections.
"""

from functools import lru_cache
from typing import Final

from discovery.api import (
    Message,
    backoff_pb2,
    base_pb2,
    duration_pb2,
    hcm_pb2,
    http_inspector_pb2,
    listener_components_pb2,
    listener_pb2,
    previous_hosts_pb2,
    previous_priorities_config_pb2,
    protocol_pb2,
    route_components_pb2,
    route_pb2,
    router_pb2,
    set_filter_state_pb2,
    substitution_format_string_pb2,
    tcp_proxy_pb2,
    value_pb2,
    wrappers_pb2,
)
from discovery.clusters import preserve_case, u32
from discovery.endpoints import socket_address
from discovery.loggers import http_entries, tcp_entries
from discovery.protocols import Protocol
from discovery.statistics import http_statistics, tcp_statistics
from discovery.tls import packed
from mesh import names

# What an undeclared server-first connection waits at most.
DETECTION_S: Final = 0.05
# How often a request is tried before the client is told; the retries find the next priority by themselves. At
# CONNECT_TIMEOUT_S each it is ten seconds for peers that are too busy to accept: the kernel drops the SYN while a
# listener's queue is full, and without a mesh the client's own kernel would try again for two minutes. A refusal costs
# a round trip, so a dead application is told of at once.
REQUEST_ATTEMPTS: Final = 10
# The same for a connection of bytes, which finds the next priority only once every address of the first is out: that
# takes up to five failures for each (discovery.clusters.FAILURES), so ten were too few for two addresses where HTTP is
# looked for (1 of 3,768 while every leaf had expired, tests/cluster/test_renewal.py).
CONNECT_ATTEMPTS: Final = 20
# After an answer that ends the connection Envoy waits so long for the client to close first; the end of a WebSocket is
# always that, and its client waits for the server. Not zero: closing at once with bytes of the client unread is a
# reset, in which an early answer (413, say) is lost.
DELAYED_CLOSE_S: Final = 0.2
STAT_PREFIX: Final = "out"
# What http_inspector calls what it found.
_HTTP_FOUND: Final = ("http/1.0", "http/1.1", "h2c")
_NEVER: Final = duration_pb2.Duration()


def seconds(value: float) -> Message:
    whole = int(value)
    return duration_pb2.Duration(seconds=whole, nanos=round((value - whole) * 1e9))


def build_listener(name: str, address: str, port: int, cluster: str, protocol: Protocol) -> Message:
    """Connections to `address`:`port` go to `cluster` as `protocol` says."""
    listener = listener_pb2.Listener(
        name=name,
        address=socket_address(address, port),
        bind_to_port=wrappers_pb2.BoolValue(value=False),
        traffic_direction=base_pb2.OUTBOUND,
        stat_prefix=STAT_PREFIX,
    )
    if protocol in (Protocol.HTTP, Protocol.WEBSOCKET):
        listener.filter_chains.append(_http_chain(cluster))
    elif protocol is Protocol.TCP:
        listener.filter_chains.append(_tcp_chain(cluster))
    else:
        found = _http_chain(cluster)
        found.filter_chain_match.application_protocols.extend(_HTTP_FOUND)
        listener.filter_chains.append(found)
        listener.default_filter_chain.CopyFrom(_tcp_chain(cluster))
        listener.listener_filters.append(_http_inspector())
        listener.listener_filters_timeout.CopyFrom(seconds(DETECTION_S))
        listener.continue_on_listener_filters_timeout = True
        # Known limit of Envoy 1.40: a client that has sent and closed its side before these bytes are looked at is
        # dropped (listener_filter_buffer_impl.cc acts on `Closed` without reading). `printf ... | nc -N` and
        # fire-and-forget protocols meet it; a port declared as TCP or opaque is not looked at.
    return listener


@lru_cache(maxsize=1)
def _http_inspector() -> Message:
    return listener_components_pb2.ListenerFilter(
        name="envoy.filters.listener.http_inspector", typed_config=packed(http_inspector_pb2.HttpInspector())
    )


def _tcp_chain(cluster: str) -> Message:
    proxy = tcp_proxy_pb2.TcpProxy(
        stat_prefix=STAT_PREFIX,
        cluster=cluster,
        idle_timeout=_NEVER,
        # A refused address is ejected a moment after the attempt that found out: without the pause the next attempt
        # may still be given the same one (1 connection in 8 failed under load).
        max_connect_attempts=u32(CONNECT_ATTEMPTS),
        backoff_options=_backoff(0.02, 0.1),
        access_log=[*tcp_statistics(), tcp_entries()],
    )
    return listener_components_pb2.FilterChain(
        name="tcp",
        filters=[
            _say_tcp(),
            listener_components_pb2.Filter(name="envoy.filters.network.tcp_proxy", typed_config=packed(proxy)),
        ],
    )


def _backoff(first_s: float, last_s: float) -> Message:
    return backoff_pb2.BackoffStrategy(base_interval=seconds(first_s), max_interval=seconds(last_s))


@lru_cache(maxsize=1)
def _say_tcp() -> Message:
    """The cluster's ALPN says HTTP; this replaces it for the one connection."""
    text = substitution_format_string_pb2.SubstitutionFormatString(
        text_format_source=base_pb2.DataSource(inline_string=names.ALPN_TCP)
    )
    value = value_pb2.FilterStateValue(
        object_key="envoy.network.application_protocols",
        factory_key="envoy.network.application_protocols",
        format_string=text,
        shared_with_upstream=value_pb2.FilterStateValue.ONCE,
    )
    return listener_components_pb2.Filter(
        name="envoy.filters.network.set_filter_state",
        typed_config=packed(set_filter_state_pb2.Config(on_new_connection=[value])),
    )


def _http_chain(cluster: str) -> Message:
    return listener_components_pb2.FilterChain(
        name="http",
        filters=[
            listener_components_pb2.Filter(
                name="envoy.filters.network.http_connection_manager", typed_config=packed(_http(cluster))
            )
        ],
    )


def _http(cluster: str) -> Message:
    """An HTTP proxy as transparent as HTTP allows: no time-out, limit, header or rewrite of its own."""
    manager = hcm_pb2.HttpConnectionManager()
    manager.CopyFrom(_transparent())
    manager.route_config.CopyFrom(_routes(cluster))
    return manager


@lru_cache(maxsize=1)
def _transparent() -> Message:
    return hcm_pb2.HttpConnectionManager(
        stat_prefix=STAT_PREFIX,
        codec_type=hcm_pb2.HttpConnectionManager.AUTO,
        generate_request_id=wrappers_pb2.BoolValue(value=False),
        use_remote_address=wrappers_pb2.BoolValue(value=False),
        skip_xff_append=True,
        server_header_transformation=hcm_pb2.HttpConnectionManager.PASS_THROUGH,
        normalize_path=wrappers_pb2.BoolValue(value=False),
        path_with_escaped_slashes_action=hcm_pb2.HttpConnectionManager.KEEP_UNCHANGED,
        stream_idle_timeout=_NEVER,
        request_timeout=_NEVER,
        delayed_close_timeout=seconds(DELAYED_CLOSE_S),
        max_request_headers_kb=u32(8192),
        common_http_protocol_options=protocol_pb2.HttpProtocolOptions(idle_timeout=_NEVER, max_headers_count=u32(4096)),
        http_protocol_options=protocol_pb2.Http1ProtocolOptions(
            allow_absolute_url=wrappers_pb2.BoolValue(value=True),
            accept_http_10=True,
            default_host_for_http_10="localhost",
            header_key_format=preserve_case(),
            allow_custom_methods=True,
            allow_chunked_length=True,
        ),
        http2_protocol_options=protocol_pb2.Http2ProtocolOptions(allow_connect=True),
        upgrade_configs=[hcm_pb2.HttpConnectionManager.UpgradeConfig(upgrade_type="websocket")],
        http_filters=[hcm_pb2.HttpFilter(name="envoy.filters.http.router", typed_config=packed(_router()))],
        access_log=[*http_statistics(), http_entries()],
    )


def _router() -> Message:
    # Without the counters that the stats matcher of the bootstrap drops: they cost time in each request.
    return router_pb2.Router(suppress_envoy_headers=True, dynamic_stats=wrappers_pb2.BoolValue(value=False))


def _routes(cluster: str) -> Message:
    action = route_components_pb2.RouteAction(
        cluster=cluster,
        timeout=_NEVER,
        retry_policy=_retry(),
        max_stream_duration=route_components_pb2.RouteAction.MaxStreamDuration(max_stream_duration=_NEVER),
    )
    route = route_components_pb2.Route(match=route_components_pb2.RouteMatch(prefix="/"), route=action)
    everything = route_components_pb2.VirtualHost(name="all", domains=["*"], routes=[route])
    return route_pb2.RouteConfiguration(name=STAT_PREFIX, virtual_hosts=[everything])


@lru_cache(maxsize=1)
def _retry() -> Message:
    """Only what never reached a server is sent again: to another address, then to the next priority (plaintext)."""
    policy = route_components_pb2.RetryPolicy
    return policy(
        retry_on="connect-failure,refused-stream",
        num_retries=u32(REQUEST_ATTEMPTS - 1),
        retry_host_predicate=[
            policy.RetryHostPredicate(
                name="envoy.retry_host_predicates.previous_hosts",
                typed_config=packed(previous_hosts_pb2.PreviousHostsPredicate()),
            )
        ],
        retry_priority=policy.RetryPriority(
            name="envoy.retry_priorities.previous_priorities",
            typed_config=packed(previous_priorities_config_pb2.PreviousPrioritiesConfig(update_frequency=2)),
        ),
        host_selection_retry_max_attempts=5,
        retry_back_off=policy.RetryBackOff(base_interval=seconds(0.001), max_interval=seconds(0.002)),
    )
