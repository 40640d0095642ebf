"""Every profile in the eyes of openssl; the leaf's bytes against those of the official builder."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from ca import der, profile
from ca.authority import Authority
from ca.edge import new_serial
from ca.errors import IssueError
from ca.issuer import LeafIssuer, new_key
from ca.profile import ServingNames
from mesh.spiffe import TrustDomain
from mesh.svid import certificate_pem, parse_credential
from tests.ca.authorities import (
    LIFETIMES,
    SERVING,
    T0,
    TRUST_DOMAIN,
    WEB,
    a_leaf,
    a_root,
    an_issuer,
    openssl_verify,
    secret_data,
)

ROOT = a_root()
ISSUER = an_issuer(ROOT)


@pytest.mark.parametrize("purpose", ["sslclient", "sslserver"])
def test_a_workload_verifies_as_client_and_as_server(tmp_path: Path, purpose: str) -> None:
    issued = a_leaf(ISSUER)
    assert openssl_verify(tmp_path, issued.chain_pem, ROOT, purpose=purpose).stderr == ""


def test_a_serving_certificate_verifies_as_server_only(tmp_path: Path) -> None:
    issued = a_leaf(ISSUER, SERVING)
    assert openssl_verify(tmp_path, issued.chain_pem, ROOT, purpose="sslserver").returncode == 0
    refused = openssl_verify(tmp_path, issued.chain_pem, ROOT, purpose="sslclient")
    assert "unsuitable certificate purpose" in refused.stderr


def test_an_issuer_verifies_as_an_authority_under_its_root(tmp_path: Path) -> None:
    assert openssl_verify(tmp_path, certificate_pem(ISSUER.certificate), ROOT, purpose="any").returncode == 0


def test_a_leaf_does_not_verify_under_another_root(tmp_path: Path) -> None:
    assert openssl_verify(tmp_path, a_leaf(ISSUER).chain_pem, a_root()).returncode != 0


@pytest.mark.parametrize(
    "subject",
    [
        pytest.param(TrustDomain.parse("evil.test").workload("shop", "web"), id="another trust domain"),
        pytest.param(TrustDomain.parse("sub.cluster.local").workload("shop", "web"), id="a domain below ours"),
        pytest.param(ServingNames(("kubernetes.default.svc",)), id="another namespace's Service"),
        pytest.param(ServingNames(("autotls-webhook.autotls.svc.cluster.local",)), id="the long form"),
    ],
)
def test_openssl_refuses_names_that_the_issuer_may_not_certify(tmp_path: Path, subject: profile.Subject) -> None:
    purpose = "sslserver" if isinstance(subject, ServingNames) else "sslclient"
    answer = openssl_verify(tmp_path, a_leaf(ISSUER, subject).chain_pem, ROOT, purpose=purpose)
    assert "permitted subtree violation" in answer.stderr


def test_openssl_refuses_an_authority_made_by_the_issuer(tmp_path: Path) -> None:
    below = an_issuer(ISSUER)
    chain = a_leaf(below).chain_pem + certificate_pem(ISSUER.certificate)
    assert "path length constraint exceeded" in openssl_verify(tmp_path, chain, ROOT).stderr


def test_what_a_leaf_carries() -> None:
    leaf = a_leaf(ISSUER, serial=7).certificate
    extensions = leaf.extensions
    assert leaf.serial_number == 7
    assert leaf.version is x509.Version.v3
    assert len(leaf.subject.rdns) == 0
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    assert [(type(name), name.value) for name in names.value] == [(x509.UniformResourceIdentifier, str(WEB))]
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical and usage.value.digital_signature
    assert not any((usage.value.key_cert_sign, usage.value.crl_sign, usage.value.key_encipherment))
    assert set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }
    key = leaf.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    identifier = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert identifier == x509.SubjectKeyIdentifier.from_public_key(key)


def test_validity_is_backdated_and_counted_from_now() -> None:
    leaf = a_leaf(ISSUER, now=T0.replace(microsecond=999_999)).certificate
    assert leaf.not_valid_before_utc == T0 - LIFETIMES.skew
    assert leaf.not_valid_after_utc == T0 + LIFETIMES.leaf


def test_a_leaf_never_outlives_its_issuer_nor_an_issuer_its_root() -> None:
    late = ISSUER.certificate.not_valid_after_utc - timedelta(hours=1)
    assert a_leaf(ISSUER, now=late).certificate.not_valid_after_utc == ISSUER.certificate.not_valid_after_utc
    late = ROOT.certificate.not_valid_after_utc - timedelta(days=1)
    assert an_issuer(ROOT, now=late).certificate.not_valid_after_utc == ROOT.certificate.not_valid_after_utc


def test_an_expired_authority_signs_nothing() -> None:
    with pytest.raises(IssueError, match="expired"):
        a_leaf(ISSUER, now=ISSUER.certificate.not_valid_after_utc)
    with pytest.raises(IssueError, match="expired"):
        an_issuer(ROOT, now=ROOT.certificate.not_valid_after_utc + timedelta(seconds=1))


@pytest.mark.parametrize("serial", [0, -1, 1 << 159])
def test_a_number_that_is_no_serial_is_refused(serial: int) -> None:
    with pytest.raises(IssueError, match="serial"):
        LeafIssuer(ISSUER, LIFETIMES).issue(WEB, key=new_key(), serial=serial, now=T0)


def test_serials_are_128_random_bits() -> None:
    serials = {new_serial() for _ in range(200)}
    assert len(serials) == 200
    assert all(0 < serial < 1 << 128 for serial in serials)
    assert max(serials).bit_length() > 120


def test_a_key_that_is_not_the_issuers_is_found_out_before_anything_is_returned() -> None:
    crossed = LeafIssuer(Authority(ISSUER.certificate, new_key()), LIFETIMES)
    with pytest.raises(IssueError, match="signature"):
        crossed.issue(WEB, key=new_key(), serial=1, now=T0)


def test_the_issued_secret_is_an_identity() -> None:
    identity = parse_credential(secret_data(a_leaf(ISSUER), ROOT))
    assert identity.key_fits
    assert identity.issuers == (ISSUER.certificate,)
    assert identity.bundle.roots == (ROOT.certificate,)


def test_an_rsa_issuer_of_somebody_else_can_sign_leaves(tmp_path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody's CA")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(T0).not_valid_after(T0 + timedelta(days=30))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    usage = profile.root_extensions()[1][0]
    builder = builder.add_extension(usage, critical=True)
    authority = Authority(builder.sign(key, hashes.SHA256()), key)
    assert openssl_verify(tmp_path, a_leaf(authority).chain_pem, authority).stderr == ""


subjects = st.one_of(
    st.builds(TRUST_DOMAIN.workload, st.from_regex(r"[a-z0-9-]{1,63}", fullmatch=True),
              st.from_regex(r"[a-z0-9][a-z0-9.-]{0,251}[a-z0-9]", fullmatch=True)),
    st.builds(lambda names: ServingNames(tuple(names)),
              st.lists(st.from_regex(r"[a-z]{1,20}\.autotls\.svc", fullmatch=True), min_size=1, max_size=4)),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    subject=subjects,
    serial=st.integers(1, profile.MAX_SERIAL),
    start=st.datetimes(datetime(1950, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
)
def test_to_be_signed_bytes_are_those_of_the_official_builder(
    subject: profile.Subject, serial: int, start: datetime
) -> None:
    key = new_key()
    start = start.replace(microsecond=0)
    validity = (start, start + timedelta(days=1))
    ours = LeafIssuer(ISSUER, LIFETIMES)._to_be_signed(subject, key, serial, validity)
    builder = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(ISSUER.certificate.subject)
    builder = builder.public_key(key.public_key()).serial_number(serial)
    builder = builder.not_valid_before(validity[0]).not_valid_after(validity[1])
    for content, critical in profile.leaf_extensions(subject):
        builder = builder.add_extension(content, critical)
    builder = builder.add_extension(profile.alternative_names(subject), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    issuer_id = ISSUER.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id), critical=False
    )
    key_of_issuer = ISSUER.key
    assert isinstance(key_of_issuer, ec.EllipticCurvePrivateKey)
    assert ours == builder.sign(key_of_issuer, hashes.SHA256()).tbs_certificate_bytes


@given(number=st.integers(0, 1 << 160))
def test_integers_have_the_shortest_positive_form(number: int) -> None:
    encoded = der.integer(number)
    assert int.from_bytes(encoded[2:], "big", signed=True) == number
    assert len(encoded) == 3 or encoded[2] != 0 or encoded[3] & 0x80


@given(content=st.binary(min_size=1, max_size=400))
def test_pem_is_read_back_by_openssls_rules(content: bytes) -> None:
    lines = der.pem("CERTIFICATE", content).split(b"\n")
    assert all(len(line) == 64 for line in lines[1:-3])
    assert lines[0] == b"-----BEGIN CERTIFICATE-----" and lines[-2] == b"-----END CERTIFICATE-----"


def test_keys_and_certificates_fit_in_the_eyes_of_openssl(tmp_path: Path) -> None:
    issued = a_leaf(ISSUER)
    (tmp_path / "tls.key").write_bytes(issued.key_pem)
    (tmp_path / "tls.crt").write_bytes(issued.chain_pem)
    assert issued.key_pem.startswith(b"-----BEGIN PRIVATE KEY-----")
    of_key = subprocess.check_output(["openssl", "pkey", "-in", str(tmp_path / "tls.key"), "-pubout"])
    of_leaf = subprocess.check_output(["openssl", "x509", "-in", str(tmp_path / "tls.crt"), "-noout", "-pubkey"])
    assert of_key == of_leaf
