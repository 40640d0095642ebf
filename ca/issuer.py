"""Makes certificates: roots, issuers and leaves. Pure: time, serials and keys come in as arguments.

Nothing leaves this module unverified: `ca.verify` parses what was made and judges it before it is returned.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from ca import der, profile
from ca.authority import Authority
from ca.errors import IssueError
from ca.profile import Constraints, Extension, Lifetimes, Subject
from ca.verify import expect_leaf, expected_names, key_identifier, signed_by
from mesh.svid import PrivateKey, certificate_pem, private_key_pem

_SHA256: Final = hashes.SHA256()
_ECDSA: Final = ec.ECDSA(_SHA256)
_PKCS1: Final = padding.PKCS1v15()


@dataclass(frozen=True, slots=True)
class Issued:
    """A fresh certificate with its key, ready for a Secret."""

    certificate: x509.Certificate
    chain_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False, compare=False)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A P-256 key. Not Ed25519: Envoy 1.40 does not offer it to clients, and they fail with "certificate required"."""
    return ec.generate_private_key(ec.SECP256R1())


def make_root(*, key: ec.EllipticCurvePrivateKey, serial: int, now: datetime, lifetimes: Lifetimes) -> Authority:
    """A self-signed root, valid from `now` less the clock skew, for `lifetimes.root` from `now`."""
    name = profile.authority_name("root", serial)
    builder = _builder(key, serial, _validity(now, lifetimes.skew, now + lifetimes.root), profile.root_extensions())
    certificate = builder.subject_name(name).issuer_name(name).sign(key, _SHA256)
    return _verified(Authority(certificate, key), certificate)


def make_issuer(
    root: Authority,
    *,
    key: ec.EllipticCurvePrivateKey,
    serial: int,
    now: datetime,
    lifetimes: Lifetimes,
    constraints: Constraints,
) -> Authority:
    """An issuer signed by `root`, which it never outlives.

    Raises IssueError when `root` has expired.
    """
    not_after = min(now + lifetimes.issuer, root.certificate.not_valid_after_utc)
    extensions = profile.issuer_extensions(constraints)
    builder = _builder(key, serial, _validity(now, lifetimes.skew, not_after), extensions)
    builder = builder.subject_name(profile.authority_name("issuer", serial)).issuer_name(root.certificate.subject)
    builder = builder.add_extension(_authority_key_identifier(root.certificate), critical=False)
    certificate = builder.sign(root.key, _SHA256)
    return _verified(Authority(certificate, key), root.certificate)


class LeafIssuer:
    """Issues leaves of one authority; what is the same in all of them is encoded once, here."""

    def __init__(self, authority: Authority, lifetimes: Lifetimes) -> None:
        self.authority = authority
        self._lifetimes = lifetimes
        self._chain_pem = b"".join(certificate_pem(one) for one in authority.chain)
        self._algorithm = der.RSA_WITH_SHA256 if isinstance(authority.key, rsa.RSAPrivateKey) else der.ECDSA_WITH_SHA256
        self._before_validity = self._algorithm + authority.certificate.subject.public_bytes()
        self._authority_id = der.extension(_authority_key_identifier(authority.certificate), critical=False)
        self._fixed: dict[type, bytes] = {}

    def __repr__(self) -> str:
        return f"LeafIssuer({self.authority!r})"

    def issue(self, subject: Subject, *, key: ec.EllipticCurvePrivateKey, serial: int, now: datetime) -> Issued:
        """A verified leaf for `subject` with `key`, valid from `now` less the clock skew.

        It lives for `lifetimes.leaf` and never longer than the authority. Raises IssueError when the authority has
        expired, `serial` is not a serial (RFC 5280 4.1.2.2) or what was made does not verify.
        """
        if not 0 < serial <= profile.MAX_SERIAL:
            raise IssueError("a serial is positive and at most 20 octets long")
        validity = _validity(
            now,
            self._lifetimes.skew,
            min(now + self._lifetimes.leaf, self.authority.certificate.not_valid_after_utc),
        )
        content = self._sign(self._to_be_signed(subject, key, serial, validity))
        certificate = x509.load_der_x509_certificate(content)
        expect_leaf(certificate, subject=subject, key=key, issuer=self.authority.certificate)
        chain_pem = der.pem("CERTIFICATE", content) + self._chain_pem
        return Issued(certificate=certificate, chain_pem=chain_pem, key_pem=private_key_pem(key))

    def _to_be_signed(
        self, subject: Subject, key: ec.EllipticCurvePrivateKey, serial: int, validity: tuple[datetime, datetime]
    ) -> bytes:
        public_key = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        extensions = (
            self._fixed_extensions(subject)
            # RFC 5280 4.2.1.6: critical, since the subject is empty.
            + der.alternative_names(expected_names(subject))
            + der.subject_key_identifier(public_key)
            + self._authority_id
        )
        return der.to_be_signed(serial, self._before_validity, validity, _EMPTY_SUBJECT + public_key, extensions)

    def _fixed_extensions(self, subject: Subject) -> bytes:
        kind = type(subject)
        if kind not in self._fixed:
            self._fixed[kind] = b"".join(
                der.extension(content, critical=critical) for content, critical in profile.leaf_extensions(subject)
            )
        return self._fixed[kind]

    def _sign(self, tbs: bytes) -> bytes:
        key: PrivateKey = self.authority.key
        signature = key.sign(tbs, _PKCS1, _SHA256) if isinstance(key, rsa.RSAPrivateKey) else key.sign(tbs, _ECDSA)
        return der.certificate(tbs, self._algorithm, signature)


_EMPTY_SUBJECT: Final = profile.EMPTY_SUBJECT.public_bytes()


def _authority_key_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier(key_identifier(issuer), None, None)


def _validity(now: datetime, skew: timedelta, not_after: datetime) -> tuple[datetime, datetime]:
    """Whole seconds, as X.509 has them. Raises IssueError when nothing of the lifetime is left."""
    if not_after <= now:
        raise IssueError("the issuing authority has expired", hint="the CA makes a new one within its renewal time")
    return (now - skew).replace(microsecond=0), not_after.replace(microsecond=0)


def _builder(
    key: ec.EllipticCurvePrivateKey,
    serial: int,
    validity: tuple[datetime, datetime],
    extensions: tuple[Extension, ...],
) -> x509.CertificateBuilder:
    public_key = key.public_key()
    builder = (
        x509.CertificateBuilder()
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )
    for content, critical in extensions:
        builder = builder.add_extension(content, critical=critical)
    return builder


def _verified(made: Authority, signer: x509.Certificate) -> Authority:
    if not signed_by(made.certificate, signer) or made.certificate.public_key() != made.key.public_key():
        raise IssueError("an authority that was just made does not verify")
    if made.certificate.not_valid_after_utc > signer.not_valid_after_utc:
        raise IssueError("an authority would outlive the root that signed it")
    return made
