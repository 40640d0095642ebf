"""How a proxy dials a meshed peer: its own SVID, the trust bundle, and the exact names it accepts.

The paths are those of the proxy image; the same for every pod, so that the bytes are too.
"""

from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache
from typing import Final

from discovery.api import (
    Message,
    any_pb2,
    base_pb2,
    common_pb2,
    config_source_pb2,
    duration_pb2,
    secret_pb2,
    string_pb2,
    tls_pb2,
)
from mesh import names


class Mode(StrEnum):
    """What the proxy that dials does when a meshed peer cannot be reached by TLS: go plaintext, or fail."""

    OPTIONAL = "optional"
    STRICT = "strict"


SECRETS_FOLDER: Final = "/usr/local/lib/autotls/sds"
# Endpoint metadata `envoy.transport_socket_match` {MATCH_KEY: MATCH_VALUE} asks for this socket.
MATCH_KEY: Final = "autotls"
MATCH_VALUE: Final = "mtls"


def packed(message: Message) -> Message:
    """`message` as an Any; deterministic, because the bytes decide the version."""
    return any_pb2.Any(
        type_url=f"type.googleapis.com/{message.DESCRIPTOR.full_name}",
        value=message.SerializeToString(deterministic=True),
    )


@lru_cache(maxsize=4)
def _secret(name: str) -> Message:
    source = config_source_pb2.ConfigSource(
        path_config_source=config_source_pb2.PathConfigSource(
            path=f"{SECRETS_FOLDER}/{name}.yaml",
            watched_directory=base_pb2.WatchedDirectory(path=names.IDENTITY_MOUNT),
        ),
        initial_fetch_timeout=duration_pb2.Duration(nanos=200_000_000),
        resource_api_version=config_source_pb2.V3,
    )
    return secret_pb2.SdsSecretConfig(name=name, sds_config=source)


def upstream_tls(identities: Iterable[str], mode: Mode) -> Message:
    """Mutual TLS that accepts exactly `identities` (SPIFFE IDs) as the peer.

    Raises ValueError without any: an empty list would accept every certificate of the trust domain.
    """
    pinned = sorted(identities)
    if not pinned:
        raise ValueError("no identity to pin")
    context = tls_pb2.UpstreamTlsContext(
        auto_host_sni=True,
        common_tls_context=tls_pb2.CommonTlsContext(
            tls_params=common_pb2.TlsParameters(
                tls_minimum_protocol_version=common_pb2.TlsParameters.TLSv1_2,
                tls_maximum_protocol_version=_newest(mode),
            ),
            # TCP chains replace it by names.ALPN_TCP, connection by connection.
            alpn_protocols=[names.ALPN_HTTP],
            tls_certificate_sds_secret_configs=[_secret("leaf")],
            combined_validation_context=tls_pb2.CommonTlsContext.CombinedCertificateValidationContext(
                default_validation_context=common_pb2.CertificateValidationContext(
                    match_typed_subject_alt_names=[_exactly(identity) for identity in pinned]
                ),
                validation_context_sds_secret_config=_secret("roots"),
            ),
        ),
    )
    return base_pb2.TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(context))


def _newest(mode: Mode) -> Message:
    # docs/adr/0010: in TLS 1.3 a client learns that its certificate was refused only after it believes it is
    # connected, too late to fall back. Strict mode never falls back.
    return common_pb2.TlsParameters.TLSv1_2 if mode is Mode.OPTIONAL else common_pb2.TlsParameters.TLSv1_3


def _exactly(identity: str) -> Message:
    return common_pb2.SubjectAltNameMatcher(
        san_type=common_pb2.SubjectAltNameMatcher.URI, matcher=string_pb2.StringMatcher(exact=identity)
    )
