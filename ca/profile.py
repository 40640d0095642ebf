"""What goes into each certificate: the four profiles, as extensions in a fixed order, and the lifetimes.

Sources: RFC 5280 section 4.2 (extensions), 4.1.2.2 (serials); SPIFFE X509-SVID sections 4 and 5.
"""

from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mesh.config import IdentityConfig, parse_duration
from mesh.spiffe import SpiffeId, TrustDomain

Extension = tuple[x509.ExtensionType, bool]  # value, critical

# RFC 5280 4.1.2.2: positive, 20 octets at most. 128 random bits are beyond guessing and collision.
SERIAL_BITS: Final = 128
MAX_SERIAL: Final = (1 << 159) - 1

# An empty subject (RFC 5280 4.1.2.6): the name is in the SAN, which is then critical (4.2.1.6).
EMPTY_SUBJECT: Final = x509.Name([])


@dataclass(frozen=True, slots=True)
class ServingNames:
    """The DNS names of a certificate that the control plane serves with."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(self.names)


Subject = SpiffeId | ServingNames


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long certificates live and when they are renewed (`renew_at`, `jitter`: shares of a life)."""

    leaf: timedelta
    issuer: timedelta
    root: timedelta
    skew: timedelta
    renew_at: float
    jitter: float

    @classmethod
    def of(cls, config: IdentityConfig) -> "Lifetimes":
        """Raises ConfigError for text that is not a duration; `mesh.config.parse_config` has checked it before."""
        return cls(
            leaf=parse_duration(config.leaf_lifetime),
            issuer=parse_duration(config.issuer_lifetime),
            root=parse_duration(config.root_lifetime),
            skew=parse_duration(config.clock_skew),
            renew_at=config.renew_at,
            jitter=config.renew_jitter,
        )


@dataclass(frozen=True, slots=True)
class Constraints:
    """What the issuer may certify (RFC 5280 4.2.1.10)."""

    trust_domain: TrustDomain
    control_plane_namespace: str

    @property
    def dns_subtree(self) -> str:
        """The DNS subtree under which the control plane's Services are called."""
        return f"{self.control_plane_namespace}.svc"

    def serving_names(self, service: str) -> ServingNames:
        """The name by which the API server calls `service`: `<service>.<namespace>.svc`.

        The longer form under the cluster domain lies outside the permitted subtree, and nobody calls it.
        """
        return ServingNames((f"{service}.{self.dns_subtree}",))


def authority_name(role: str, serial: int) -> x509.Name:
    """`CN=autotls <role> <8 hex digits>`. Every generation has its own name, so that a verifier which holds
    two roots finds the right one by name already; some try only the first of a name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"autotls {role} {serial & 0xFFFFFFFF:08x}")])


def root_extensions() -> tuple[Extension, ...]:
    """A root signs issuers only: path length 1 (RFC 5280 4.2.1.9), keyCertSign and cRLSign (4.2.1.3)."""
    return (x509.BasicConstraints(ca=True, path_length=1), True), (_AUTHORITY_USAGE, True)


def issuer_extensions(constraints: Constraints) -> tuple[Extension, ...]:
    """An issuer signs leaves only, and only names of ours: permitted subtrees, critical (RFC 5280 4.2.1.10).

    The URI constraint is the trust domain as a host, without a leading dot: exactly that host.
    """
    permitted = [
        x509.UniformResourceIdentifier(constraints.trust_domain.name),
        x509.DNSName(constraints.dns_subtree),
    ]
    return (
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (_AUTHORITY_USAGE, True),
        (x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None), True),
    )


def leaf_extensions(subject: Subject) -> tuple[Extension, ...]:
    """What a leaf carries besides its SAN and key identifiers.

    A workload is both client and server (X509-SVID 4.3 and 4.4); what the control plane serves with is a server.
    """
    return _WORKLOAD_EXTENSIONS if isinstance(subject, SpiffeId) else _SERVING_EXTENSIONS


def alternative_names(subject: Subject) -> x509.SubjectAlternativeName:
    """Exactly one URI for a workload (X509-SVID 2), the DNS names for a server."""
    if isinstance(subject, SpiffeId):
        return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(subject))])
    return x509.SubjectAlternativeName([x509.DNSName(name) for name in subject.names])


@cache
def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,  # the handshake signature; ECDSA does no key encipherment
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


_AUTHORITY_USAGE: Final = _usage(authority=True)
_LEAF: Final[tuple[Extension, ...]] = (
    (x509.BasicConstraints(ca=False, path_length=None), True),
    (_usage(authority=False), True),
)
_WORKLOAD_EXTENSIONS: Final[tuple[Extension, ...]] = (
    *_LEAF,
    (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False),
)
_SERVING_EXTENSIONS: Final[tuple[Extension, ...]] = (
    *_LEAF,
    (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
)
