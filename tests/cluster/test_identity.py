"""Identities of real pods: when they are there, what openssl and Envoy say to them, and who is refused."""

import base64
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from mesh import names
from tests.cluster.kubectl import OPTED_IN, Space, eventually, space
from tests.cluster.machine import Machine
from tests.cluster.plane import Plane, a_pod, an_account, save_identity
from tests.cluster.starts import FIRST, KNOWN, NEW_NAMESPACE, Start, openssl_faults, start
from tests.fixtures_cluster import RunningCluster

pytestmark = pytest.mark.cluster

STARTS: Final = (*[FIRST] * 27, *[NEW_NAMESPACE] * 11, *[KNOWN] * 14)
BATCH: Final = 7


@dataclass(frozen=True, slots=True)
class Fleet:
    """Everything that was started, and a server that stays."""

    starts: list[Start]
    server: str
    """Its address."""
    identity: Path
    """Of some ServiceAccount of the mesh."""


@pytest.fixture(scope="module")
def fleet(cluster: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    Plane(cluster).wait_healthy()
    folder = tmp_path_factory.mktemp("identities")
    with space(cluster, "identity", labels=OPTED_IN) as home:
        home.apply(an_account("server"))
        known = eventually(lambda: home.find("secret", names.identity_secret_name("server")), "the server's identity")
        identity = save_identity(known, folder / "known")
        home.apply(a_pod(cluster, "server", "server"))
        server = home.wait_ready("server")[0]["status"]["podIP"]
        starts: list[Start] = []
        for first in range(0, len(STARTS), BATCH):
            cases = STARTS[first : first + BATCH]
            starts += start(home, [(case, f"p{first + number}") for number, case in enumerate(cases)], server, folder)
        yield Fleet(starts, server, identity)


def test_secrets_are_there_when_the_kubelet_mounts_them(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """How often is printed: for a pod whose ServiceAccount is made in the same moment it is a race that we aim to win.
    For a known ServiceAccount it is none."""
    late = [f"{each.spiffe_id.rpartition('/')[2]} by {each.late_s:.1f} s" for each in fleet.starts if each.late_s > 0]
    with capsys.disabled():
        print(f"\nidentity there before the first mount: {len(STARTS) - len(late)} of {len(STARTS)}")
        for case in (FIRST, NEW_NAMESPACE, KNOWN):
            found = [each.late_s for each in fleet.starts if each.case == case]
            print(f"  {case}: {sum(seconds <= 0 for seconds in found)} of {len(found)}")
        if late:
            print(f"  later, and served all the same: {', '.join(late)}")
    assert len(fleet.starts) == len(STARTS) >= 50
    assert all(each.late_s <= 0 for each in fleet.starts if each.case == KNOWN)


def test_every_pod_serves_the_identity_of_its_service_account(fleet: Fleet) -> None:
    assert [each.served.get("peer") for each in fleet.starts] == [each.spiffe_id for each in fleet.starts]


def test_envoy_accepts_every_identity(fleet: Fleet) -> None:
    assert [each.accepted for each in fleet.starts if each.accepted.get("status") != 200] == []


def test_openssl_verifies_every_certificate(fleet: Fleet) -> None:
    assert [each for each in fleet.starts if each.faults] == []


def test_every_service_account_has_a_certificate_of_its_own(fleet: Fleet) -> None:
    serials = {each.spiffe_id: each.served["serial"] for each in fleet.starts}
    assert len(set(serials.values())) == len(serials)


def test_openssl_verifies_the_control_planes_certificates(cluster: RunningCluster, tmp_path: Path) -> None:
    plane = Plane(cluster)
    secrets = {name: plane.space.get("secret", name) for name in (names.ISSUER_SECRET, names.WEBHOOK_TLS_SECRET)}
    issuer = save_identity(secrets[names.ISSUER_SECRET], tmp_path / "issuer")
    webhook = save_identity(secrets[names.WEBHOOK_TLS_SECRET], tmp_path / "webhook")
    assert openssl_faults(webhook, ["sslserver"]) == []
    argv = ["openssl", "verify", "-x509_strict", "-CAfile", str(issuer / "ca.crt"), str(issuer / "tls.crt")]
    assert subprocess.run(argv, capture_output=True, text=True, check=False).returncode == 0


def test_published_bundle_is_the_one_in_the_secrets(cluster: RunningCluster, fleet: Fleet) -> None:
    issuer = Plane(cluster).space.get("secret", names.ISSUER_SECRET)
    bundle = base64.b64decode(issuer["data"][names.TRUST_BUNDLE_KEY]).decode()
    namespace = fleet.starts[-1].spiffe_id.split("/")[4]
    published = Space(cluster, namespace).get("configmap", names.TRUST_BUNDLE_CONFIG_MAP)
    assert published["data"] == {names.TRUST_BUNDLE_KEY: bundle}
    assert (fleet.identity / names.TRUST_BUNDLE_KEY).read_text() == bundle


STRANGERS: Final = {
    "no certificate": "no_cert",
    "another root, our trust domain": "error",
    # What our own issuer could never sign: its name constraints forbid it, and a peer's Envoy looks at them.
    "our root, another trust domain": "error",
}


@pytest.mark.parametrize("case", STRANGERS)
def test_stranger_is_refused(cluster: RunningCluster, fleet: Fleet, tmp_path: Path, case: str) -> None:
    machine = Machine(cluster)
    job = {"address": fleet.server, "port": names.INBOUND_TLS_PORT, "identity": str(fleet.identity)}
    stranger = {**job, "certificate": False} if case == "no certificate" else {**job, "identity": str(tmp_path)}
    if case != "no certificate":
        domain = "cluster.local" if case.startswith("another root") else "elsewhere.example"
        make_leaf(tmp_path, f"spiffe://{domain}/ns/shop/sa/web", signer=signer_of(cluster, tmp_path, case))
        (tmp_path / names.TRUST_BUNDLE_KEY).write_bytes((fleet.identity / names.TRUST_BUNDLE_KEY).read_bytes())

    def refused() -> float:
        metric = f"envoy_listener_ssl_fail_verify_{STRANGERS[case]}"
        return machine.metric(fleet.server, names.STATUS_PORT, metric)

    before = refused()
    answers = machine.call(job, stranger)
    assert answers[0].get("status") == 200
    assert "error" in answers[1], answers[1]
    # The alert itself may be lost: the peer closes while we still write.
    eventually(lambda: refused() == before + 1, lambda: f"one more than {before} refused: {refused()}")


def signer_of(cluster: RunningCluster, folder: Path, case: str) -> tuple[Path, Path]:
    """Certificate and key that sign the stranger: a root of his own, or our issuer with its key as a thief has it."""
    certificate, key = folder / "signer.crt", folder / "signer.key"
    if case.startswith("our root"):
        issuer = Plane(cluster).space.get("secret", names.ISSUER_SECRET)
        certificate.write_bytes(base64.b64decode(issuer["data"][names.TLS_CERT_KEY]))
        key.write_bytes(base64.b64decode(issuer["data"][names.TLS_PRIVATE_KEY_KEY]))
        return certificate, key
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"),
        *("-subj", "/CN=another root", "-keyout", str(key), "-out", str(certificate)),
    )
    return certificate, key


def make_leaf(folder: Path, uri: str, *, signer: tuple[Path, Path]) -> None:
    request, extensions, leaf = folder / "request", folder / "extensions", folder / "leaf"
    openssl(
        *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/O=autotls"),
        *("-keyout", str(folder / names.TLS_PRIVATE_KEY_KEY), "-out", str(request)),
    )
    extensions.write_text(f"subjectAltName=URI:{uri}\nextendedKeyUsage=clientAuth,serverAuth\n")
    certificate, key = signer
    openssl(
        *("x509", "-req", "-in", str(request), "-days", "1", "-extfile", str(extensions), "-out", str(leaf)),
        *("-CA", str(certificate), "-CAkey", str(key), "-CAcreateserial"),
    )
    (folder / names.TLS_CERT_KEY).write_text(leaf.read_text() + certificate.read_text())


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=600)
