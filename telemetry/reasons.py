"""Which of its four causes `tls_failed` had, and why a proxy has no listener for what it should have one for. Pure.

The label `reason` comes from the endpoint, which knows that a meshed peer was reached in plaintext and not why. The
proxies' own counters know: the client's, by what it dialled, and the server's, where that proxy was asked too.
tests/discovery/test_reasons.py provokes each cause with real Envoys.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from mesh import series
from mesh.reasons import Plaintext

# The name of a series, its labels, its value (of the window, or since the proxy's start).
Sample = tuple[str, Mapping[str, str], float]

# What cluster_label makes of a `svc`: a Service's, and that of an address.
_SERVICE: Final = re.compile(r"([^/]+/[^/]+)_(\d+)(/v[46])?")
_IPV4: Final = re.compile(r"pod/([\d_]+)_(\d+)")
_IPV6: Final = re.compile(r"pod/(\[[0-9a-f_]+\])_(\d+)")
_NO_IDENTITY: Final = "envoy_cluster_client_ssl_socket_factory_upstream_context_secrets_not_ready"
_CONNECT_FAILED: Final = "envoy_cluster_upstream_cx_connect_fail"
_TIMED_OUT: Final = "envoy_cluster_upstream_cx_connect_timeout"
_HANDSHAKE_FAILED: Final = (
    "envoy_cluster_ssl_connection_error",
    "envoy_cluster_ssl_fail_verify_no_cert",
    "envoy_cluster_ssl_fail_verify_error",
    "envoy_cluster_ssl_fail_verify_san",
    "envoy_cluster_ssl_fail_verify_cert_hash",
)
_SERVER_NO_IDENTITY: Final = "envoy_listener_server_ssl_socket_factory_downstream_context_secrets_not_ready"
_SECRET: Final = "envoy_xds_resource_name"  # noqa: S105 - a label
_SECRET_LOADED: Final = "envoy_sds_update_success"  # noqa: S105 - a counter
_LEAF: Final = "leaf"
_LISTENERS_RECEIVED: Final = "envoy_listener_manager_lds_update_success"

# What a scrape must keep for the functions below.
EVIDENCE: Final = frozenset(
    {
        *(_NO_IDENTITY, _CONNECT_FAILED, _TIMED_OUT, *_HANDSHAKE_FAILED),
        *(_SERVER_NO_IDENTITY, _SECRET_LOADED, _LISTENERS_RECEIVED),
    }
)


def cluster_label(svc: str) -> str:
    """How the label `svc` reads in Envoy's own series: `shop/web_80` for `shop/web:80`.

    Envoy replaces colons in names (Utility::sanitizeStatsName), discovery/clusters.py dots.
    """
    return svc.replace(".", "_").replace(":", "_")


def svc_of(label: str) -> str:
    """The `svc` of a cluster_label; empty for clusters that are none of discovery's. Kubernetes' names hold no `_`."""
    if found := _IPV4.fullmatch(label):
        return f"pod/{found[1].replace('_', '.')}:{found[2]}"
    if found := _IPV6.fullmatch(label):
        return f"pod/{found[1].replace('_', ':')}:{found[2]}"
    if found := _SERVICE.fullmatch(label):
        return f"{found[1]}:{found[2]}{found[3] or ''}"
    return ""


@dataclass(frozen=True, slots=True)
class Attempts:
    """What became of a client's connections to one cluster: how many ended before they were any, and how."""

    failed: float = 0.0  # all of them, the following included
    no_identity: float = 0.0
    timed_out: float = 0.0
    handshake: float = 0.0


def attempts(samples: Iterable[Sample]) -> dict[str, Attempts]:
    """By cluster_label, from the scrape of a client's proxy."""
    found: dict[str, list[float]] = {}
    for name, labels, value in samples:
        if name not in EVIDENCE or series.CLUSTER not in labels:
            continue
        counts = found.setdefault(labels[series.CLUSTER], [0.0, 0.0, 0.0, 0.0])
        if name in _HANDSHAKE_FAILED:
            counts[3] += value
        else:
            counts[(_CONNECT_FAILED, _NO_IDENTITY, _TIMED_OUT).index(name)] += value
    return {cluster: Attempts(*counts) for cluster, counts in found.items()}


def turned_away(samples: Iterable[Sample]) -> bool:
    """From the scrape of a server's proxy: it closed connections because it has no identity yet."""
    return any(name == _SERVER_NO_IDENTITY and value > 0 for name, _, value in samples)


def refine(client: Attempts, *, server_without_identity: bool = False) -> Plaintext:
    """The cause of most failed attempts; TLS_FAILED where none was counted.

    A fallback lasts for up to a minute after the attempt that failed, so a window may hold connections in plaintext and
    no attempt: then the attempts since the proxy's start say more.
    """
    if client.no_identity:
        return Plaintext.NO_IDENTITY_CLIENT
    # Neither a byte of TLS nor an answer: refused or dropped on the way, or closed by a proxy that cannot answer yet.
    silent = client.failed - client.handshake
    if client.handshake and client.handshake >= silent:
        return Plaintext.HANDSHAKE_FAILED
    if silent <= 0:
        return Plaintext.TLS_FAILED
    if server_without_identity and client.timed_out < silent:
        return Plaintext.NO_IDENTITY_SERVER
    return Plaintext.UNREACHABLE


def own_fault(samples: Iterable[Sample]) -> Plaintext | None:
    """Why this proxy has no listener for a meshed peer, as far as that is its own state; `samples` since its start.

    What it was never told by discovery passes through, and the destination's address is all that is counted.
    """
    loaded = received = 0.0
    for name, labels, value in samples:
        if name == _SECRET_LOADED and labels.get(_SECRET) == _LEAF:
            loaded += value
        elif name == _LISTENERS_RECEIVED:
            received += value
    if received:
        return None
    return Plaintext.DISCOVERY_UNAVAILABLE if loaded else Plaintext.NO_IDENTITY_CLIENT
