"""X.509 identities as values: leaf, key and trust bundle of an SVID, and the Secret data that they come from.

Sources: SPIFFE X509-SVID, RFC 5280, RFC 7468 (PEM).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mesh import names
from mesh.errors import AutotlsError

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_REPAIR: Final = "the CA replaces it when the Secret is its own; delete it otherwise"


class SvidError(AutotlsError):
    """Bytes are not an identity: a part is missing, unreadable, or does not fit the others."""


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """Every root that a peer's certificate may lead to, in a fixed order and each once."""

    roots: tuple[x509.Certificate, ...]

    @classmethod
    def of(cls, roots: Iterable[x509.Certificate]) -> "TrustBundle":
        """The bundle of `roots` in their order, without repetitions."""
        return cls(tuple(dict.fromkeys(roots)))

    @classmethod
    def parse(cls, pem: bytes) -> "TrustBundle":
        """Raises SvidError unless `pem` holds at least one certificate and nothing unreadable."""
        return cls.of(_certificates(pem, names.TRUST_BUNDLE_KEY))

    def at(self, now: datetime) -> "TrustBundle":
        """Only the roots that have not expired at `now`: an expired one can verify nothing."""
        return TrustBundle(tuple(root for root in self.roots if root.not_valid_after_utc >= now))

    def without(self, other: "TrustBundle") -> tuple[x509.Certificate, ...]:
        """The roots of this bundle that `other` does not hold."""
        return tuple(root for root in self.roots if root not in other.roots)

    @property
    def pem(self) -> bytes:
        return b"".join(certificate_pem(root) for root in self.roots)


@dataclass(frozen=True, slots=True)
class Credential:
    """What a `kubernetes.io/tls` Secret of ours holds, parsed once: leaf, issuers above it, key, bundle."""

    leaf: x509.Certificate
    issuers: tuple[x509.Certificate, ...]
    key: PrivateKey = field(repr=False, compare=False)
    bundle: TrustBundle

    @property
    def key_fits(self) -> bool:
        """True when the key is the one that the leaf certifies."""
        return self.key.public_key() == self.leaf.public_key()


def parse_credential(data: Mapping[str, bytes]) -> Credential:
    """The credential in the decoded `data` of a `kubernetes.io/tls` Secret with `ca.crt`.

    Raises SvidError that names the key of the Secret which is missing or unreadable. Does not judge whether the
    parts fit together: that is policy.
    """
    leaf, *issuers = _certificates(_part(data, names.TLS_CERT_KEY), names.TLS_CERT_KEY)
    try:
        _alternative_names(leaf)
        leaf.public_key()
    except (ValueError, x509.DuplicateExtension, UnsupportedAlgorithm):
        raise SvidError(f"{names.TLS_CERT_KEY} holds a certificate that cannot be decoded", hint=_REPAIR) from None
    key = parse_private_key(_part(data, names.TLS_PRIVATE_KEY_KEY), names.TLS_PRIVATE_KEY_KEY)
    bundle = TrustBundle.parse(_part(data, names.TRUST_BUNDLE_KEY))
    return Credential(leaf=leaf, issuers=tuple(issuers), key=key, bundle=bundle)


def certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def private_key_pem(key: PrivateKey) -> bytes:
    """PKCS#8 without encryption, the form that Envoy and kubernetes.io/tls both take."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def parse_private_key(pem: bytes, name: str) -> PrivateKey:
    """Raises SvidError naming `name`. The cause is dropped: a parser's text could quote what it read."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SvidError(f"{name} is not an unencrypted private key in PEM form", hint=_REPAIR) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise SvidError(f"{name} holds a key of a kind that is not supported", hint="use ECDSA (P-256) or RSA")
    return key


def parse_certificates(pem: bytes, name: str) -> tuple[x509.Certificate, ...]:
    """Raises SvidError naming `name` unless `pem` holds at least one certificate and all are readable."""
    return tuple(_certificates(pem, name))


def _part(data: Mapping[str, bytes], name: str) -> bytes:
    try:
        return data[name]
    except KeyError:
        raise SvidError(f"{name} is missing", hint=_REPAIR) from None


def _certificates(pem: bytes, name: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise SvidError(f"{name} does not hold certificates in PEM form", hint=_REPAIR) from None


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
