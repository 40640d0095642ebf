"""A CA in memory for tests: fixed times, counted serials, and the openssl binary as the judge."""

import itertools
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ca.authority import Authority
from ca.issuer import Issued, LeafIssuer, make_issuer, make_root, new_key
from ca.profile import Constraints, Lifetimes, Subject
from mesh import names
from mesh.spiffe import TrustDomain
from mesh.svid import TrustBundle, certificate_pem

T0 = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
TRUST_DOMAIN = TrustDomain.parse("cluster.local")
CONSTRAINTS = Constraints(TRUST_DOMAIN, "autotls")
LIFETIMES = Lifetimes(
    leaf=timedelta(hours=24),
    issuer=timedelta(days=365),
    root=timedelta(days=3650),
    skew=timedelta(minutes=10),
    renew_at=2 / 3,
    jitter=0.05,
)
WEB = TRUST_DOMAIN.workload("shop", "web")
SERVING = CONSTRAINTS.serving_names(names.WEBHOOK)

_serials = itertools.count(1 << 100)


def a_root(now: datetime = T0, lifetimes: Lifetimes = LIFETIMES) -> Authority:
    return make_root(key=new_key(), serial=next(_serials), now=now, lifetimes=lifetimes)


def an_issuer(root: Authority, now: datetime = T0, lifetimes: Lifetimes = LIFETIMES) -> Authority:
    return make_issuer(
        root, key=new_key(), serial=next(_serials), now=now, lifetimes=lifetimes, constraints=CONSTRAINTS
    )


def a_leaf(
    issuer: Authority, subject: Subject = WEB, now: datetime = T0, lifetimes: Lifetimes = LIFETIMES, serial: int = 0
) -> Issued:
    return LeafIssuer(issuer, lifetimes).issue(subject, key=new_key(), serial=serial or next(_serials), now=now)


def secret_data(issued: Issued, *roots: Authority) -> dict[str, bytes]:
    bundle = TrustBundle.of(root.certificate for root in roots)
    return {"tls.crt": issued.chain_pem, "tls.key": issued.key_pem, "ca.crt": bundle.pem}


def openssl_verify(
    folder: Path, chain_pem: bytes, *roots: Authority, now: datetime = T0, purpose: str = "sslclient"
) -> subprocess.CompletedProcess[str]:
    """`openssl verify` of the first certificate of `chain_pem` against `roots`, strictly, at `now`."""
    leaf = folder / "leaf.pem"
    untrusted, trusted = folder / "chain.pem", folder / "roots.pem"
    leaf.write_bytes(chain_pem)
    untrusted.write_bytes(chain_pem)
    trusted.write_bytes(b"".join(certificate_pem(root.certificate) for root in roots))
    argv = ["openssl", "verify", "-x509_strict", "-no-CApath", "-no-CAstore", "-attime", str(int(now.timestamp()))]
    argv += ["-purpose", purpose, "-CAfile", str(trusted), "-untrusted", str(untrusted), str(leaf)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
