"""Test certificates, and an identity folder that changes the way the kubelet changes it."""

from __future__ import annotations

import secrets
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

TRUST_DOMAIN = "cluster.local"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate with its key and the roots its owner trusts, as PEM."""

    certificate: bytes
    key: bytes
    roots: bytes
    serial: int

    def __repr__(self) -> str:
        return f"Leaf(serial={self.serial:x})"

    def files(self) -> dict[str, bytes]:
        return {"tls.crt": self.certificate, "tls.key": self.key, "ca.crt": self.roots}


def spiffe(service_account: str, trust_domain: str = TRUST_DOMAIN) -> str:
    return f"spiffe://{trust_domain}/ns/test/sa/{service_account}"


class Authority:
    """A root that signs leaves directly; the data plane does not care how long the chain is."""

    def __init__(self, name: str = "test root") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        self._certificate = (
            _builder(self._name, self._name, self._key.public_key(), now - timedelta(days=9), now + timedelta(days=9))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def leaf(
        self,
        identity: str,
        *,
        valid_from: timedelta = timedelta(hours=-1),
        valid_until: timedelta = timedelta(hours=24),
        roots: bytes | None = None,
    ) -> Leaf:
        """A leaf for one SPIFFE ID; the validity is relative to now."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            _builder(x509.Name([]), self._name, key.public_key(), now + valid_from, now + valid_until)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)]), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Leaf(
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            self.pem if roots is None else roots,
            certificate.serial_number,
        )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    not_before: datetime,
    not_after: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )


def client_context(leaf: Leaf | None, roots: bytes, alpn: str, folder: Path) -> ssl.SSLContext:
    """A TLS client's context; the server's name is not checked, its chain is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=roots.decode())
    if alpn:
        context.set_alpn_protocols([alpn])
    if leaf is not None:
        pair = folder / f"client-{secrets.token_hex(4)}.pem"
        pair.write_bytes(leaf.certificate + leaf.key)
        context.load_cert_chain(pair)
    return context


def swap_identity(folder: Path, files: dict[str, bytes]) -> None:
    """Writes files the way the kubelet does: a new folder, then one rename of ``..data``, then the visible links.

    Source: k8s.io/kubernetes pkg/volume/util/atomic_writer.go.
    """
    generation = folder / f"..{secrets.token_hex(6)}"
    generation.mkdir()
    for name, content in files.items():
        (generation / name).write_bytes(content)
    fresh = folder / "..data_tmp"
    fresh.symlink_to(generation.name)
    fresh.rename(folder / "..data")
    for name in files:
        link = folder / name
        if not link.is_symlink():
            link.symlink_to(Path("..data") / name)
