"""Errors of discovery.

AutotlsError
└── DiscoveryError
    ├── PeerError          who is calling cannot be told, or asks for another's configuration
    ├── RequestError       bytes are not what the protocol of xDS or access logs has
    ├── CredentialsError   the serving certificate's files are unusable
    ├── TapLimitError      too many taps at once
    └── TapRefusedError    a tap that is not allowed, or no tap at all
"""

from enum import StrEnum

from mesh.errors import AutotlsError


class DiscoveryError(AutotlsError):
    """The base of this room's errors."""


class Refusal(StrEnum):
    """Why a stream was refused; a metric's label."""

    NO_CERTIFICATE = "no_certificate"
    FOREIGN_IDENTITY = "foreign_identity"
    UNKNOWN_ADDRESS = "unknown_address"
    OTHER_IDENTITY = "other_identity"
    OTHER_POD = "other_pod"


class PeerError(DiscoveryError):
    """A stream is refused; `refusal` says why, `retry` whether the same proxy may succeed a little later."""

    def __init__(self, refusal: Refusal, message: str, *, retry: bool = False) -> None:
        super().__init__(message)
        self.refusal = refusal
        self.retry = retry


class CredentialsError(DiscoveryError):
    """The serving certificate's files are no certificate and key that belong together. Never contains their content."""


class RequestError(DiscoveryError):
    """Bytes are not what the protocol of xDS or of access logs has."""


class TapLimitError(DiscoveryError):
    """Too many taps at once."""


class TapRefusedError(DiscoveryError):
    """A tap that is not allowed, or no tap at all; `status` is that of HTTP."""

    def __init__(self, status: int, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
