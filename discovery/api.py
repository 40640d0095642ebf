"""The only door to xds-protos, which carries no types: its modules, as Any.

Messages are built from keyword arguments, and a wrong name raises at once; tests/discovery hands every kind of
resource to a real Envoy.
"""

import importlib
from typing import Any, Final, TypeAlias

# Any protobuf message; generated classes without types cannot be told apart by a checker.
Message: TypeAlias = Any

accesslog_pb2: Final[Any] = importlib.import_module("envoy.config.accesslog.v3.accesslog_pb2")
address_pb2: Final[Any] = importlib.import_module("envoy.config.core.v3.address_pb2")
als_pb2: Final[Any] = importlib.import_module("envoy.service.accesslog.v3.als_pb2")
any_pb2: Final[Any] = importlib.import_module("google.protobuf.any_pb2")
backoff_pb2: Final[Any] = importlib.import_module("envoy.config.core.v3.backoff_pb2")
base_pb2: Final[Any] = importlib.import_module("envoy.config.core.v3.base_pb2")
cel_pb2: Final[Any] = importlib.import_module("envoy.extensions.access_loggers.filters.cel.v3.cel_pb2")
circuit_breaker_pb2: Final[Any] = importlib.import_module("envoy.config.cluster.v3.circuit_breaker_pb2")
cluster_pb2: Final[Any] = importlib.import_module("envoy.config.cluster.v3.cluster_pb2")
common_pb2: Final[Any] = importlib.import_module("envoy.extensions.transport_sockets.tls.v3.common_pb2")
config_source_pb2: Final[Any] = importlib.import_module("envoy.config.core.v3.config_source_pb2")
custom_tag_pb2: Final[Any] = importlib.import_module("envoy.type.tracing.v3.custom_tag_pb2")
discovery_pb2: Final[Any] = importlib.import_module("envoy.service.discovery.v3.discovery_pb2")
duration_pb2: Final[Any] = importlib.import_module("google.protobuf.duration_pb2")
endpoint_components_pb2: Final[Any] = importlib.import_module("envoy.config.endpoint.v3.endpoint_components_pb2")
endpoint_pb2: Final[Any] = importlib.import_module("envoy.config.endpoint.v3.endpoint_pb2")
extension_pb2: Final[Any] = importlib.import_module("envoy.config.core.v3.extension_pb2")
grpc_loggers_pb2: Final[Any] = importlib.import_module("envoy.extensions.access_loggers.grpc.v3.als_pb2")
grpc_service_pb2: Final[Any] = importlib.import_module("envoy.config.core.v3.grpc_service_pb2")
hcm_pb2: Final[Any] = importlib.import_module(
    "envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2"
)
http_inspector_pb2: Final[Any] = importlib.import_module(
    "envoy.extensions.filters.listener.http_inspector.v3.http_inspector_pb2"
)
http_protocol_options_pb2: Final[Any] = importlib.import_module(
    "envoy.extensions.upstreams.http.v3.http_protocol_options_pb2"
)
listener_components_pb2: Final[Any] = importlib.import_module("envoy.config.listener.v3.listener_components_pb2")
listener_pb2: Final[Any] = importlib.import_module("envoy.config.listener.v3.listener_pb2")
outlier_detection_pb2: Final[Any] = importlib.import_module("envoy.config.cluster.v3.outlier_detection_pb2")
percent_pb2: Final[Any] = importlib.import_module("envoy.type.v3.percent_pb2")
preserve_case_pb2: Final[Any] = importlib.import_module(
    "envoy.extensions.http.header_formatters.preserve_case.v3.preserve_case_pb2"
)
previous_hosts_pb2: Final[Any] = importlib.import_module(
    "envoy.extensions.retry.host.previous_hosts.v3.previous_hosts_pb2"
)
previous_priorities_config_pb2: Final[Any] = importlib.import_module(
    "envoy.extensions.retry.priority.previous_priorities.v3.previous_priorities_config_pb2"
)
protocol_pb2: Final[Any] = importlib.import_module("envoy.config.core.v3.protocol_pb2")
route_components_pb2: Final[Any] = importlib.import_module("envoy.config.route.v3.route_components_pb2")
route_pb2: Final[Any] = importlib.import_module("envoy.config.route.v3.route_pb2")
router_pb2: Final[Any] = importlib.import_module("envoy.extensions.filters.http.router.v3.router_pb2")
rtds_pb2: Final[Any] = importlib.import_module("envoy.service.runtime.v3.rtds_pb2")
secret_pb2: Final[Any] = importlib.import_module("envoy.extensions.transport_sockets.tls.v3.secret_pb2")
set_filter_state_pb2: Final[Any] = importlib.import_module(
    "envoy.extensions.filters.network.set_filter_state.v3.set_filter_state_pb2"
)
stats_pb2: Final[Any] = importlib.import_module("envoy.extensions.access_loggers.stats.v3.stats_pb2")
string_pb2: Final[Any] = importlib.import_module("envoy.type.matcher.v3.string_pb2")
struct_pb2: Final[Any] = importlib.import_module("google.protobuf.struct_pb2")
substitution_format_string_pb2: Final[Any] = importlib.import_module(
    "envoy.config.core.v3.substitution_format_string_pb2"
)
tcp_proxy_pb2: Final[Any] = importlib.import_module("envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2")
tls_pb2: Final[Any] = importlib.import_module("envoy.extensions.transport_sockets.tls.v3.tls_pb2")
value_pb2: Final[Any] = importlib.import_module("envoy.extensions.filters.common.set_filter_state.v3.value_pb2")
wrappers_pb2: Final[Any] = importlib.import_module("google.protobuf.wrappers_pb2")
