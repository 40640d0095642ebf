"""The cluster's certificates hold up to a strict verifier."""

import datetime
import json
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from cluster import controlplane, kubeconfig
from cluster.controlplane import ControlPlane
from cluster.pki import Authority, KeyPair

NOW = datetime.datetime(2026, 5, 1, tzinfo=datetime.UTC)


def certificate(pair: KeyPair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes())


def test_server_certificates_verify_for_every_name(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca", NOW)
    serving = certificate(authority.server("api", "kube-apiserver", ("10.123.0.2", "fd7a::2", "localhost")))
    builder = PolicyBuilder().store(Store([certificate(authority.pair)])).time(NOW)
    for name in (
        x509.IPAddress(ip_address("10.123.0.2")),
        x509.IPAddress(ip_address("fd7a::2")),
        x509.DNSName("localhost"),
    ):
        builder.build_server_verifier(name).verify(serving, [])
    with pytest.raises(x509.verification.VerificationError):
        builder.build_server_verifier(x509.DNSName("other")).verify(serving, [])


def test_client_certificates_carry_user_and_groups(tmp_path: Path) -> None:
    pair = Authority(tmp_path, "ca", NOW).client("node1", "system:node:node1", ["system:nodes"])
    subject = certificate(pair).subject
    assert [name.value for name in subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["system:node:node1"]
    assert [name.value for name in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] == ["system:nodes"]


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    plane = ControlPlane(folder=tmp_path, addresses=("127.0.0.1",), bind="127.0.0.1", service_ranges="10.96.0.0/16")
    controlplane.write_files(plane, NOW, nodes=["node1"])
    secret = [*plane.pki.glob("*.key"), *plane.pki.glob("*.kubeconfig"), plane.admin_kubeconfig]
    assert len(secret) > 10
    for path in secret:
        assert path.stat().st_mode & 0o077 == 0, path


def test_an_authority_shows_no_key(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca", NOW)
    assert "PRIVATE" not in repr(authority) + str(vars(authority))


def test_a_kubeconfig_needs_no_other_file(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca", NOW)
    path = tmp_path / "kubeconfig"
    client = authority.client("admin", "admin", ["system:masters"])
    kubeconfig.write(
        path, server="https://10.0.0.1:6443", authority=authority.pair.certificate, client=client, name="x"
    )
    text = path.read_text()
    assert json.loads(text)["current-context"] == "x"
    assert str(tmp_path) not in text
    assert "insecure" not in text
