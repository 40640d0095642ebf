"""How much of one core an issuance takes: key, leaf with the full profile, PEM, verification.

    python -m bench.issuance [--rounds 9] [--count 400]

Against bare `cryptography` doing the same: its CertificateBuilder, then its check of the signature, which alone takes
a third of the time. Bare making without any look at the result is printed beside it. CPU time, interleaved, medians.
"""

import secrets
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from bench.budget import Line, report
from bench.options import options
from ca.authority import Authority
from ca.issuer import LeafIssuer, make_issuer, make_root, new_key
from ca.profile import Constraints, Lifetimes
from mesh.config import IdentityConfig
from mesh.spiffe import TrustDomain

BUDGET = 0.9
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIFETIMES = Lifetimes.of(IdentityConfig())
TRUST_DOMAIN = TrustDomain.parse("cluster.local")
SUBJECT = TRUST_DOMAIN.workload("shop", "checkout")


def main() -> None:
    given = options(__doc__, rounds=9, count=400)
    root = make_root(key=new_key(), serial=1, now=NOW, lifetimes=LIFETIMES)
    constraints = Constraints(TRUST_DOMAIN, "autotls")
    authority = make_issuer(root, key=new_key(), serial=2, now=NOW, lifetimes=LIFETIMES, constraints=constraints)
    issuer, bare = LeafIssuer(authority, LIFETIMES), Bare(authority)

    def ours() -> object:
        return issuer.issue(SUBJECT, key=new_key(), serial=secrets.randbits(128) or 1, now=NOW)

    rates: dict[str, list[float]] = {"ours": [], "bare": [], "checked": []}
    for _ in range(given.rounds):
        rates["ours"].append(rate(ours, given.count))
        rates["bare"].append(rate(bare.make, given.count))
        rates["checked"].append(rate(bare.make_and_check, given.count))
    value, making, checked = (statistics.median(rates[name]) for name in ("ours", "bare", "checked"))
    against = "bare cryptography, its own signature check included"
    report(
        Line("issuances per core-second", value, "", BUDGET, checked, against, relative=True, at_least=True),
        Line("  beside a maker that checks nothing", value, "", None, making, "bare cryptography"),
    )


def rate(job: Callable[[], object], count: int) -> float:
    started = time.process_time()
    for _ in range(count):
        job()
    return count / (time.process_time() - started)


class Bare:
    """The certificate as anybody would make it with `cryptography`."""

    def __init__(self, authority: Authority) -> None:
        self._certificate = authority.certificate
        assert isinstance(authority.key, ec.EllipticCurvePrivateKey)
        self._key = authority.key
        identifier = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        self._authority_id = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
        self._chain = authority.certificate.public_bytes(serialization.Encoding.PEM)
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign",
             "crl_sign", "encipher_only", "decipher_only"),
            False,
        )  # fmt: skip
        self._extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (x509.KeyUsage(digital_signature=True, **usage), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False),
        )

    def make(self) -> tuple[x509.Certificate, bytes, bytes]:
        key = ec.generate_private_key(ec.SECP256R1())
        public_key = key.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._certificate.subject)
            .public_key(public_key)
            .serial_number(secrets.randbits(128) or 1)
            .not_valid_before(NOW - LIFETIMES.skew)
            .not_valid_after(NOW + LIFETIMES.leaf)
        )
        for content, critical in self._extensions:
            builder = builder.add_extension(content, critical)
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(SUBJECT))])
        builder = builder.add_extension(names, critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        builder = builder.add_extension(self._authority_id, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        chain = certificate.public_bytes(serialization.Encoding.PEM) + self._chain
        encryption = serialization.NoEncryption()
        return (
            certificate,
            chain,
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption),
        )

    def make_and_check(self) -> None:
        certificate, _, _ = self.make()
        certificate.verify_directly_issued_by(self._certificate)


if __name__ == "__main__":
    main()
