"""Why a connection was not mutual TLS: one closed vocabulary for discovery, statistics, Events and `check`."""

from enum import StrEnum


class Plaintext(StrEnum):
    """The reason of one plaintext connection, shown unchanged as a metric's label and in every report.

    Discovery knows the first group beforehand and writes it into the metadata of each endpoint, so that the proxy's
    statistics carry it. The second group is what a proxy finds out while it dials a meshed peer: the endpoint says
    `tls_failed`, and who reads the statistics refines it (telemetry.reasons). The third is known to whoever sees a
    connection that no listener of discovery's took. docs/telemetry.md says it for operators.
    """

    # Known beforehand.
    NOT_MESHED = "not_meshed"  # nothing of ours runs at that address
    SKIPPED_PORT = "skipped_port"  # the server's pod asked to leave this port alone, or it is one of ours
    # A meshed peer that could not be reached by TLS: the fallback of optional mode.
    TLS_FAILED = "tls_failed"  # one of the four below; the endpoint alone cannot tell which
    NO_IDENTITY_CLIENT = "no_identity_client"  # mostly seen as a passthrough: without one discovery says nothing
    NO_IDENTITY_SERVER = "no_identity_server"
    HANDSHAKE_FAILED = "handshake_failed"  # one side does not accept the other's certificate
    UNREACHABLE = "unreachable"  # refused or dropped: the server's proxy is dead, or a NetworkPolicy forgets 15108
    # Not through a listener of discovery's.
    NO_REDIRECT = "no_redirect"  # the client's pod has no redirect container (PSS baseline or restricted)
    UNSUPPORTED_SERVICE = "unsupported_service"  # see discovery.unsupported
    OUT_OF_REACH = "out_of_reach"  # meshed, but not among what the client is configured for (setting `reach`)
    EXTERNAL = "external"  # no address of this cluster
    DISCOVERY_UNAVAILABLE = "discovery_unavailable"  # the client never got its configuration
