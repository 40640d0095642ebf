"""A certificate that signs, with its key; and the Secrets of root and issuer as values. Pure.

Root and issuer live in `kubernetes.io/tls` Secrets of the control-plane namespace, so that cert-manager can fill
them. The root's Secret has two more keys while a successor is prepared (`next.crt`, `next.key`): one object, so
that a change of root is one write under one resourceVersion and a crash leaves either the old state or the new.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from cryptography import x509

from ca.errors import AuthorityError
from ca.verify import chain_fault, is_authority
from mesh import names
from mesh.svid import (
    PrivateKey,
    SvidError,
    TrustBundle,
    certificate_pem,
    parse_certificates,
    parse_private_key,
    private_key_pem,
)

NEXT_CERT_KEY: Final = "next.crt"
NEXT_PRIVATE_KEY_KEY: Final = "next.key"

_UNTOUCHED: Final = "it is left as it is; restore it from a backup, or remove it and every identity is issued anew"


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate that signs others, its key, and the certificates between it and its root (root excluded)."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False, compare=False)
    above: tuple[x509.Certificate, ...] = ()

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """What a leaf of this authority presents after itself."""
        return (self.certificate, *self.above)


@dataclass(frozen=True, slots=True)
class RootState:
    """The root's Secret: who signs issuers, who will next, and every root that is trusted."""

    current: Authority
    bundle: TrustBundle
    next: Authority | None = None

    def prepared(self, successor: Authority) -> "RootState":
        """The same root still signs; `successor` is trusted from now on."""
        bundle = TrustBundle.of((*self.bundle.roots, successor.certificate))
        return replace(self, next=successor, bundle=bundle)

    def activated(self, now: datetime) -> "RootState":
        """The successor signs; the former root stays trusted for as long as it lives, and so do its leaves."""
        if self.next is None:
            raise AuthorityError("no successor of the root has been prepared")
        return RootState(current=self.next, bundle=self.bundle.at(now))

    def data(self) -> dict[str, bytes]:
        """The Secret's data."""
        data = {
            names.TLS_CERT_KEY: certificate_pem(self.current.certificate),
            names.TLS_PRIVATE_KEY_KEY: private_key_pem(self.current.key),
            names.TRUST_BUNDLE_KEY: self.bundle.pem,
        }
        if self.next is not None:
            data[NEXT_CERT_KEY] = certificate_pem(self.next.certificate)
            data[NEXT_PRIVATE_KEY_KEY] = private_key_pem(self.next.key)
        return data


def first_root(root: Authority) -> RootState:
    """The state after the first start: one root, trusted."""
    return RootState(current=root, bundle=TrustBundle.of((root.certificate,)))


def parse_root(data: Mapping[str, bytes]) -> RootState:
    """Raises AuthorityError that names the fault; the text never quotes the data."""
    current = _authority(data, names.ROOT_SECRET, names.TLS_CERT_KEY, names.TLS_PRIVATE_KEY_KEY)
    successor = None
    if NEXT_CERT_KEY in data or NEXT_PRIVATE_KEY_KEY in data:
        successor = _authority(data, names.ROOT_SECRET, NEXT_CERT_KEY, NEXT_PRIVATE_KEY_KEY)
    listed = _bundle(data, names.ROOT_SECRET) if data.get(names.TRUST_BUNDLE_KEY) else TrustBundle(())
    # Both must be trusted whatever ca.crt says, or what they sign would be refused by everybody.
    own = (current.certificate, *((successor.certificate,) if successor else ()))
    return RootState(current=current, next=successor, bundle=TrustBundle.of((*listed.roots, *own)))


def parse_issuer(data: Mapping[str, bytes], now: datetime) -> tuple[Authority, TrustBundle]:
    """The issuer and the bundle in the issuer's Secret, whoever filled it.

    Raises AuthorityError when a part is missing, unreadable or does not fit, or the issuer does not lead to a root
    of its own `ca.crt` at `now`. An issuer that is a root itself is its own bundle.
    """
    issuer = _authority(data, names.ISSUER_SECRET, names.TLS_CERT_KEY, names.TLS_PRIVATE_KEY_KEY)
    bundle = _bundle(data, names.ISSUER_SECRET)
    if issuer.certificate not in bundle.roots and (fault := chain_fault(issuer.certificate, issuer.above, bundle, now)):
        raise AuthorityError(f"{names.ISSUER_SECRET}: {fault}", hint=_UNTOUCHED)
    above = tuple(one for one in issuer.above if one not in bundle.roots)
    return replace(issuer, above=above), bundle


def issuer_data(issuer: Authority, bundle: TrustBundle) -> dict[str, bytes]:
    """The data of the issuer's Secret."""
    return {
        names.TLS_CERT_KEY: b"".join(certificate_pem(one) for one in issuer.chain),
        names.TLS_PRIVATE_KEY_KEY: private_key_pem(issuer.key),
        names.TRUST_BUNDLE_KEY: bundle.pem,
    }


def _authority(data: Mapping[str, bytes], secret: str, cert_key: str, key_key: str) -> Authority:
    try:
        certificate, *above = parse_certificates(data.get(cert_key, b""), cert_key)
        key = parse_private_key(data.get(key_key, b""), key_key)
        authority = is_authority(certificate)
        fits = key.public_key() == certificate.public_key()
    except (SvidError, ValueError, x509.DuplicateExtension) as error:
        text = error.message if isinstance(error, SvidError) else f"{cert_key} cannot be decoded"
        raise AuthorityError(f"{secret}: {text}", hint=_UNTOUCHED) from None
    if not authority:
        raise AuthorityError(f"{secret}: the certificate in {cert_key} may not sign others", hint=_UNTOUCHED)
    if not fits:
        raise AuthorityError(f"{secret}: {key_key} is not the key of {cert_key}", hint=_UNTOUCHED)
    return Authority(certificate=certificate, key=key, above=tuple(above))


def _bundle(data: Mapping[str, bytes], secret: str) -> TrustBundle:
    try:
        return TrustBundle.parse(data.get(names.TRUST_BUNDLE_KEY, b""))
    except SvidError as error:
        raise AuthorityError(f"{secret}: {error.message}", hint=_UNTOUCHED) from None
