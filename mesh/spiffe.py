"""SPIFFE ID and trust domain as values that exist only if they are valid.

Source: SPIFFE-ID specification, sections 2.1 (trust domain), 2.2 (path), 2.3 (maximum length).
"""

import re
from dataclasses import dataclass

from mesh.errors import AutotlsError

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}\Z")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+\Z")
_MAX_LENGTH = 2048  # bytes, SPIFFE-ID 2.3
_SCHEME = "spiffe://"


class SpiffeIdError(AutotlsError):
    """A string is not a SPIFFE ID or trust domain."""


@dataclass(frozen=True, slots=True)
class TrustDomain:
    """The name of one root of trust, for instance `cluster.local`."""

    name: str

    @classmethod
    def parse(cls, text: str) -> "TrustDomain":
        """Raises SpiffeIdError unless `text` is a trust domain name (SPIFFE-ID 2.1)."""
        if not _TRUST_DOMAIN.match(text):
            raise SpiffeIdError(
                f"{text!r} is not a trust domain",
                hint="use 1 to 255 of a-z, 0-9, '.', '-' and '_', for instance cluster.local",
            )
        return cls(text)

    def workload(self, namespace: str, service_account: str) -> "SpiffeId":
        """The identity of a ServiceAccount: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.

        Raises SpiffeIdError if either part is not a valid path segment.
        """
        for part in (namespace, service_account):
            # Two segments in one part would name somebody else's path.
            if "/" in part:
                raise SpiffeIdError(f"{part!r} is not a path segment of a SPIFFE ID", hint="it contains '/'")
        return SpiffeId.parse(f"{_SCHEME}{self.name}/ns/{namespace}/sa/{service_account}")

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """A SPIFFE ID: a trust domain and a path (with its leading slash, or empty)."""

    trust_domain: TrustDomain
    path: str

    @classmethod
    def parse(cls, text: str) -> "SpiffeId":
        """Raises SpiffeIdError with the broken part named (SPIFFE-ID 2.1 to 2.3)."""
        if len(text.encode()) > _MAX_LENGTH:
            raise SpiffeIdError(f"a SPIFFE ID of {len(text.encode())} bytes is too long", hint="2048 bytes at most")
        if not text.startswith(_SCHEME):
            raise SpiffeIdError(f"{text!r} is not a SPIFFE ID", hint="it starts with spiffe://")
        name, slash, rest = text.removeprefix(_SCHEME).partition("/")
        trust_domain = TrustDomain.parse(name)
        if not slash:
            return cls(trust_domain, "")
        for segment in rest.split("/"):
            if segment in ("", ".", "..") or not _SEGMENT.match(segment):
                raise SpiffeIdError(
                    f"{segment!r} is not a path segment of a SPIFFE ID",
                    hint="use a-z, A-Z, 0-9, '.', '-' and '_', and neither '.' nor '..' alone",
                )
        return cls(trust_domain, "/" + rest)

    @property
    def service_account(self) -> tuple[str, str] | None:
        """(namespace, ServiceAccount) of an identity of our form, None for any other path."""
        match self.path.split("/"):
            case ["", "ns", namespace, "sa", name]:
                return namespace, name
            case _:
                return None

    def __str__(self) -> str:
        return f"{_SCHEME}{self.trust_domain.name}{self.path}"
