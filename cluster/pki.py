"""The cluster's own certificate authority, and a client certificate for each program.

A throw-away authority: made with the cluster, good for a year, in files that only root reads.
"""

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME: Final = datetime.timedelta(days=365)
_BACKDATED: Final = datetime.timedelta(minutes=5)
_PRIVATE_MODE: Final = 0o600


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its key, as PEM files in one folder."""

    certificate: Path
    key: Path

    @classmethod
    def at(cls, folder: Path, name: str) -> Self:
        return cls(folder / f"{name}.crt", folder / f"{name}.key")


class Authority:
    """Signs certificates and writes them below its folder. The key stays inside: it has no repr and no getter."""

    def __init__(self, folder: Path, name: str, now: datetime.datetime) -> None:
        self._folder = folder
        self._now = now
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pair = KeyPair.at(folder, name)
        _write_pair(self.pair, certificate, self._key)

    def client(self, file: str, common_name: str, organizations: Sequence[str] = ()) -> KeyPair:
        """A client certificate: the API server takes the common name as user and the organizations as groups."""
        names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization) for organization in organizations]
        subject = x509.Name([*names, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        return self._issue(file, subject, ExtendedKeyUsageOID.CLIENT_AUTH, ())

    def server(self, file: str, common_name: str, alternative_names: Sequence[str]) -> KeyPair:
        """A serving certificate for these DNS names and addresses."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        return self._issue(file, subject, ExtendedKeyUsageOID.SERVER_AUTH, alternative_names)

    def _issue(self, file: str, subject: x509.Name, usage: x509.ObjectIdentifier, names: Sequence[str]) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            self._builder(subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
            )
        pair = KeyPair.at(self._folder, file)
        _write_pair(pair, builder.sign(self._key, hashes.SHA256()), key)
        return pair

    def _builder(self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - _BACKDATED)
            .not_valid_after(self._now + _LIFETIME)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )


def write_signing_key(folder: Path, name: str) -> tuple[Path, Path]:
    """The key that signs ServiceAccount tokens: (public, private) PEM files. RSA, as every real cluster has it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public, private = folder / f"{name}.pub", folder / f"{name}.key"
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    _write_private(private, key)
    return public, private


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write_pair(pair: KeyPair, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    _write_private(pair.key, key)


def _write_private(path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.touch(_PRIVATE_MODE)
    path.write_bytes(pem)
