"""The second eye: judges certificates by parsing them again, and knows nothing of how they were made.

Own checks instead of `cryptography.x509.verification`, which refuses every chain with name constraints of the URI
kind ("unsupported name constraint"); the tests hold these checks against the openssl binary, which enforces them.
Source: RFC 5280 section 6.1 for the chain, X509-SVID section 5 for the leaf.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import SignatureAlgorithmOID

from ca.errors import IssueError
from ca.profile import ServingNames, Subject
from mesh.svid import PrivateKey, TrustBundle

_ALGORITHMS: Final = (SignatureAlgorithmOID.ECDSA_WITH_SHA256, SignatureAlgorithmOID.RSA_WITH_SHA256)

AuthorityPublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


def expect_leaf(leaf: x509.Certificate, *, subject: Subject, key: PrivateKey, issuer: x509.Certificate) -> None:
    """Raises IssueError unless `leaf` says exactly what was asked for and `issuer` signed it.

    Names, key, usage (no authority), lifetime within the issuer's, key identifier of the issuer, signature.
    """
    extensions = leaf.extensions
    if (found := names_in(extensions)) != expected_names(subject):
        raise IssueError(f"the certificate names {found}, not {subject}")
    if leaf.public_key() != key.public_key():
        raise IssueError(f"the certificate of {subject} carries another public key")
    facts = _facts(issuer)
    if not leaf.not_valid_before_utc < leaf.not_valid_after_utc <= facts.not_after:
        raise IssueError(f"the certificate of {subject} would outlive its issuer or never be valid")
    _expect_extensions(extensions, facts, subject)
    _expect_signature(leaf, facts, subject)


def _expect_extensions(extensions: x509.Extensions, issuer: "_IssuerFacts", subject: Subject) -> None:
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
        usage = extensions.get_extension_for_class(x509.KeyUsage)
        authority = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except x509.ExtensionNotFound as missing:
        raise IssueError(f"the certificate of {subject} lacks extension {missing.oid.dotted_string}") from None
    if constraints.value.ca or not constraints.critical:
        raise IssueError(f"the certificate of {subject} would be an authority")
    if not usage.critical or not usage.value.digital_signature or usage.value.key_cert_sign:
        raise IssueError(f"the certificate of {subject} has the wrong key usage")
    if authority.value.key_identifier != issuer.key_identifier:
        raise IssueError(f"the certificate of {subject} names another issuer's key")


@dataclass(frozen=True, slots=True)
class _IssuerFacts:
    """What is read from an issuer for each of its leaves; decoding its key alone costs half a verification."""

    subject: x509.Name
    public_key: AuthorityPublicKey
    key_identifier: bytes
    not_after: datetime


@lru_cache(maxsize=16)
def _facts(issuer: x509.Certificate) -> _IssuerFacts:
    public_key = issuer.public_key()
    if not isinstance(public_key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise IssueError("the issuer's key is of a kind that is not supported", hint="use ECDSA or RSA")
    return _IssuerFacts(issuer.subject, public_key, key_identifier(issuer), issuer.not_valid_after_utc)


def _expect_signature(leaf: x509.Certificate, issuer: _IssuerFacts, subject: Subject) -> None:
    if leaf.issuer != issuer.subject or leaf.signature_algorithm_oid not in _ALGORITHMS:
        raise IssueError(f"the certificate of {subject} names another issuer or algorithm")
    try:
        if isinstance(issuer.public_key, rsa.RSAPublicKey):
            issuer.public_key.verify(leaf.signature, leaf.tbs_certificate_bytes, padding.PKCS1v15(), hashes.SHA256())
        else:
            issuer.public_key.verify(leaf.signature, leaf.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise IssueError(f"the signature of the certificate of {subject} does not verify") from None


def expected_names(subject: Subject) -> tuple[tuple[str, str], ...]:
    """The subject alternative names that a certificate of `subject` carries, each as (kind, text)."""
    if isinstance(subject, ServingNames):
        return tuple(("DNS", name) for name in subject.names)
    return (("URI", str(subject)),)


def names_in(extensions: x509.Extensions) -> tuple[tuple[str, str], ...]:
    """All subject alternative names as (kind, text), in their order; kinds we never issue by their class."""
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple((_kind(name), str(name.value)) for name in names)


def _kind(name: x509.GeneralName) -> str:
    if isinstance(name, x509.UniformResourceIdentifier):
        return "URI"
    return "DNS" if isinstance(name, x509.DNSName) else type(name).__name__


def chain_fault(
    leaf: x509.Certificate, issuers: Sequence[x509.Certificate], bundle: TrustBundle, now: datetime
) -> str | None:
    """Why `leaf` does not lead to a root of `bundle` at `now` through `issuers`; None when it does.

    Walks as a TLS peer does: signature, authority flag and validity at every step (RFC 5280 6.1.3, 6.1.4). Name
    constraints are left to the peers: only an issuer of ours could have signed, and it signs what it was asked for.
    """
    child, left = leaf, list(issuers)
    while True:
        if fault := _validity_fault(child, now):
            return fault
        anchor = next((root for root in bundle.roots if signed_by(child, root)), None)
        if anchor is not None:
            return _validity_fault(anchor, now)
        parent = next((one for one in left if signed_by(child, one)), None)
        if parent is None:
            return f"no certificate of the bundle has signed {_name(child)}"
        left.remove(parent)
        child = parent


def _validity_fault(certificate: x509.Certificate, now: datetime) -> str | None:
    if now > certificate.not_valid_after_utc:
        return f"{_name(certificate)} expired at {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    if now < certificate.not_valid_before_utc:
        return f"{_name(certificate)} is not valid before {certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}"
    return None


# A thousand identities share one issuer and one root: the step above the leaf is checked once, not each time.
@lru_cache(maxsize=4096)
def signed_by(child: x509.Certificate, parent: x509.Certificate) -> bool:
    """True when `parent` is an authority and its key has signed `child`."""
    if child.issuer != parent.subject or not is_authority(parent):
        return False
    try:
        child.verify_directly_issued_by(parent)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def is_authority(certificate: x509.Certificate) -> bool:
    """True when basic constraints say CA and key usage, where there is one, allows signing (RFC 5280 6.1.4 k, n)."""
    extensions = certificate.extensions
    try:
        if not extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        return extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound as missing:
        return missing.oid == x509.KeyUsage.oid


def key_identifier(certificate: x509.Certificate) -> bytes:
    """The subject key identifier as the certificate states it, else as RFC 5280 4.2.1.2 (1) derives it."""
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        key = certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            raise IssueError("the issuer's key is of a kind that is not supported", hint="use ECDSA or RSA") from None
        return x509.SubjectKeyIdentifier.from_public_key(key).digest


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or "the certificate"
