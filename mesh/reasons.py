"""Why a connection was not mutual TLS: one closed vocabulary for discovery, statistics, Events and `check`."""

from enum import StrEnum


class Plaintext(StrEnum):
    """The reason of one plaintext connection, shown unchanged as a metric's label and in every report.

    Discovery knows the first group beforehand and writes it into the metadata of each endpoint, so that the proxy's
    statistics carry it. The second group is what a proxy finds out while it dials a meshed peer: the endpoint says
    `tls_failed`, and who reads the statistics refines it from the counters named here. The third is known to whoever
    sees a connection that no listener of discovery's took.
    """

    # Known beforehand.
    NOT_MESHED = "not_meshed"  # nothing of ours runs at that address
    # The server's pod asked to leave this port alone, it is one of ours, or a Service of another namespace names a port
    # that the pod does not declare.
    SKIPPED_PORT = "skipped_port"
    # A meshed peer that could not be reached by TLS: the fallback of optional mode.
    TLS_FAILED = "tls_failed"  # one of the four below; the endpoint alone cannot tell which
    NO_IDENTITY_CLIENT = "no_identity_client"  # upstream_context_secrets_not_ready counts
    NO_IDENTITY_SERVER = "no_identity_server"  # the peer's downstream_context_secrets_not_ready counts
    HANDSHAKE_FAILED = "handshake_failed"  # ssl.connection_error or ssl.fail_verify_* counts
    UNREACHABLE = "unreachable"  # upstream_cx_connect_fail or _timeout counts: proxy dead, or a NetworkPolicy
    # Not through a listener of discovery's.
    NO_REDIRECT = "no_redirect"  # the client's pod has no redirect container (PSS baseline or restricted)
    UNSUPPORTED_SERVICE = "unsupported_service"  # see discovery.unsupported
    OUT_OF_REACH = "out_of_reach"  # the client's pod or namespace narrowed what it reaches
    EXTERNAL = "external"  # no address of this cluster
    DISCOVERY_UNAVAILABLE = "discovery_unavailable"  # the client never got its configuration
