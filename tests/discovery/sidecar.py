"""The proxy image's own files with what discovery adds to the bootstrap, until they are one."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.discovery.certificates import SERVER_NAME
from tests.proxy.pod import REPOSITORY, Pod

_DIALS = {"v4": "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%", "v6": "[%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%]"}

CLUSTER = """
  # ---- Discovery. ----
  - name: discovery
    type: STATIC
    connect_timeout: 1s
    wait_for_warm_on_init: false
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {connection_keepalive: {interval: 30s, timeout: 5s}}}
    load_assignment:
      cluster_name: discovery
      endpoints:
      - lb_endpoints: [{endpoint: {address: {socket_address: {address: "@DISCOVERY@", port_value: 15110}}}}]
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: @SERVER_NAME@
        common_tls_context:
          alpn_protocols: [h2]
          tls_certificate_sds_secret_configs:
          - name: leaf
            sds_config:
              path_config_source:
                path: /usr/local/lib/autotls/sds/leaf.yaml
                watched_directory: {path: /var/run/secrets/autotls.io}
              initial_fetch_timeout: 0.2s
              resource_api_version: V3
          combined_validation_context:
            default_validation_context:
              match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: "@SERVER_NAME@"}}]
            validation_context_sds_secret_config:
              name: roots
              sds_config:
                path_config_source:
                  path: /usr/local/lib/autotls/sds/roots.yaml
                  watched_directory: {path: /var/run/secrets/autotls.io}
                initial_fetch_timeout: 0.2s
                resource_api_version: V3
"""

DYNAMIC = """
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    set_node_on_first_message_only: true
    grpc_services:
    - envoy_grpc:
        cluster_name: discovery
        retry_policy: {retry_back_off: {base_interval: 0.5s, max_interval: 2s}}
  cds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0.1s}
  lds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0.1s}

layered_runtime:
  layers:
  - name: static
    static_layer: {}
  - name: autotls
    rtds_layer: {name: autotls, rtds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0.1s}}
"""

# What tells the reasons of plaintext apart (mesh.reasons), for each cluster.
STATISTICS = (
    r"cluster\..*\.(upstream_cx_(total|connect_fail|connect_timeout)|ssl\.(handshake|connection_error|fail_verify.*)"
    r"|.*secrets_not_ready|outlier_detection\.ejections_(active|enforced_total))"
)

_EXTENSION = """name: inbound_dial_{family}
        config_discovery:
          config_source: {{ads: {{}}, resource_api_version: V3, initial_fetch_timeout: 0.1s}}
          apply_default_config_without_warming: true
          type_urls: [type.googleapis.com/envoy.extensions.filters.network.set_filter_state.v3.Config]
          default_config:
            "@type": type.googleapis.com/envoy.extensions.filters.network.set_filter_state.v3.Config
            on_new_connection:
            - object_key: envoy.network.transport_socket.original_dst_address
              factory_key: envoy.network.transport_socket.original_dst_address
              format_string: {{text_format_source: {{inline_string: "{dial}:%REQUESTED_SERVER_NAME%"}}}}
              skip_if_empty: true
"""


def with_discovery(folder: Path, address: str) -> Path:
    """A copy of `proxy/` whose bootstrap knows discovery at `address`."""
    copy = folder / "proxy"
    shutil.copytree(REPOSITORY / "proxy", copy, dirs_exist_ok=True)
    path = copy / "bootstrap.yaml.in"
    path.write_text(extended(path.read_text(), address))
    return copy


def extended(bootstrap: str, address: str) -> str:
    cluster = CLUSTER.replace("@DISCOVERY@", address).replace("@SERVER_NAME@", SERVER_NAME)
    text = bootstrap.replace("\n  - name: admin\n    type: STATIC", f"{cluster}\n  - name: admin\n    type: STATIC")
    for family, dial in _DIALS.items():
        text, count = re.subn(
            rf"(- &dial_{family}\n        )name: envoy\.filters\.network\.set_filter_state\n.*?skip_if_empty: true\n",
            lambda match, f=family, d=dial: match[1] + _EXTENSION.format(family=f, dial=d),
            text,
            flags=re.S,
        )
        assert count == 1, family
    pattern = f"\n      - safe_regex: {{regex: '{STATISTICS}'}}"
    text = text.replace("\nstats_flush_interval", f"{pattern}\nstats_flush_interval", 1)
    return text + DYNAMIC


class Sidecar(Pod):
    """A pod whose proxy talks to discovery."""

    proxy_folder: Path

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), "PROXY": str(self.proxy_folder)}
