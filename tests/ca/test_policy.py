"""When a certificate is issued, and in which words."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from ca.authority import Authority
from ca.issuer import new_key
from ca.policy import Issue, Keep, Reason, judge, renewal_at
from ca.profile import Lifetimes
from mesh.svid import TrustBundle, certificate_pem, parse_credential, private_key_pem
from tests.ca.authorities import LIFETIMES, SERVING, T0, TRUST_DOMAIN, WEB, a_leaf, a_root, an_issuer, secret_data

ROOT = a_root()
ISSUER = an_issuer(ROOT)
OTHER_ROOT = a_root()
OTHER_ISSUER = an_issuer(OTHER_ROOT)
Data = dict[str, bytes]


def good() -> Data:
    return secret_data(a_leaf(ISSUER), ROOT)


def verdict(data: Data | None, *roots: Authority, now: datetime = T0, lifetimes: Lifetimes = LIFETIMES) -> Keep | Issue:
    bundle = TrustBundle.of(root.certificate for root in (roots or (ROOT,)))
    return judge(data, WEB, bundle, lifetimes, now)


def without_issuer(data: Data) -> Data:
    leaf = parse_credential(data).leaf
    return data | {"tls.crt": certificate_pem(leaf)}


CASES: dict[str, tuple[Callable[[], Data | None], Reason, str]] = {
    "there is no Secret": (lambda: None, Reason.MISSING, "no certificate of spiffe://cluster.local/ns/shop/sa/web"),
    "tls.crt is gone": (lambda: {"tls.key": b"", "ca.crt": b""}, Reason.MALFORMED, "tls.crt is missing"),
    "tls.key is gone": (
        lambda: {key: value for key, value in good().items() if key != "tls.key"},
        Reason.MALFORMED,
        "tls.key is missing",
    ),
    "ca.crt is gone": (
        lambda: {key: value for key, value in good().items() if key != "ca.crt"},
        Reason.MALFORMED,
        "ca.crt is missing",
    ),
    "tls.crt is garbage": (lambda: good() | {"tls.crt": b"garbage"}, Reason.MALFORMED, "tls.crt does not hold"),
    "tls.crt is cut in the middle": (
        lambda: good() | {"tls.crt": good()["tls.crt"][:300]},
        Reason.MALFORMED,
        "tls.crt does not hold",
    ),
    "tls.key is a certificate": (lambda: good() | {"tls.key": good()["ca.crt"]}, Reason.MALFORMED, "tls.key is not"),
    "ca.crt is empty": (lambda: good() | {"ca.crt": b""}, Reason.MALFORMED, "ca.crt does not hold"),
    "the certificate is another ServiceAccount's": (
        lambda: secret_data(a_leaf(ISSUER, TRUST_DOMAIN.workload("shop", "api")), ROOT),
        Reason.WRONG_IDENTITY,
        "names spiffe://cluster.local/ns/shop/sa/api, not spiffe://cluster.local/ns/shop/sa/web",
    ),
    "the certificate is the webhook's": (
        lambda: secret_data(a_leaf(ISSUER, SERVING), ROOT),
        Reason.WRONG_IDENTITY,
        "names autotls-webhook.autotls.svc",
    ),
    "the certificate is the issuer itself": (
        lambda: good() | {"tls.crt": b"-----BEGIN" + good()["tls.crt"].split(b"-----BEGIN")[2]},
        Reason.WRONG_IDENTITY,
        "names nothing",
    ),
    "the key is another's": (
        lambda: good() | {"tls.key": private_key_pem(new_key())},
        Reason.KEY_MISMATCH,
        "not the one that the certificate names",
    ),
    "the certificate was signed under another root": (
        lambda: secret_data(a_leaf(OTHER_ISSUER), ROOT),
        Reason.UNTRUSTED,
        "no certificate of the bundle has signed",
    ),
    "the issuer is missing from the chain": (
        lambda: without_issuer(good()),
        Reason.UNTRUSTED,
        "no certificate of the bundle has signed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_issues(case: tuple[Callable[[], Data | None], Reason, str]) -> None:
    make, reason, message = case
    found = verdict(make())
    assert isinstance(found, Issue)
    assert found.reason is reason
    assert message in found.message


def test_keeps_what_is_good_and_says_until_when() -> None:
    data = good()
    found = verdict(data)
    assert isinstance(found, Keep)
    assert T0 + LIFETIMES.leaf * 0.6 < found.renew_at <= T0 + LIFETIMES.leaf * 2 / 3
    assert verdict(data, now=found.renew_at - timedelta(seconds=1)) == found


def test_issues_when_two_thirds_of_the_life_are_over() -> None:
    found = verdict(good(), now=T0 + LIFETIMES.leaf * 2 / 3)
    assert isinstance(found, Issue) and found.reason is Reason.EXPIRING


def test_an_expired_certificate_is_expiring_and_not_untrusted() -> None:
    found = verdict(good(), now=T0 + timedelta(days=2))
    assert isinstance(found, Issue) and found.reason is Reason.EXPIRING
    assert "2026-03-02T12:00:00Z" in found.message


def test_issues_when_the_bundle_lacks_a_root_that_is_trusted_now() -> None:
    found = verdict(good(), ROOT, OTHER_ROOT)
    assert isinstance(found, Issue) and found.reason is Reason.BUNDLE_STALE


def test_a_bundle_with_more_roots_than_needed_is_no_reason_to_issue() -> None:
    assert isinstance(verdict(secret_data(a_leaf(ISSUER), ROOT, OTHER_ROOT)), Keep)


def test_a_leaf_of_a_former_issuer_is_kept_while_its_root_is_trusted() -> None:
    an_issuer(ROOT)  # the present one; the leaf's is another
    assert isinstance(verdict(good()), Keep)


def test_the_first_finding_wins() -> None:
    data = secret_data(a_leaf(OTHER_ISSUER, TRUST_DOMAIN.workload("shop", "api")), OTHER_ROOT)
    found = verdict(data | {"tls.key": private_key_pem(new_key())}, now=T0 + timedelta(days=2))
    assert isinstance(found, Issue) and found.reason is Reason.WRONG_IDENTITY


def test_jitter_follows_from_the_serial_and_spreads_over_its_whole_range() -> None:
    times = [renewal_at(a_leaf(ISSUER, serial=1 + (n << 24)).certificate, LIFETIMES) for n in range(0, 256, 8)]
    assert len(set(times)) == len(times)
    latest = T0 + LIFETIMES.leaf * 2 / 3
    assert min(times) >= latest - LIFETIMES.leaf * LIFETIMES.jitter
    assert max(times) <= latest
    assert max(times) - min(times) > LIFETIMES.leaf * LIFETIMES.jitter * 0.9


def test_a_life_of_seconds_is_renewed_within_it_although_backdated_by_minutes() -> None:
    short = replace(LIFETIMES, leaf=timedelta(seconds=9), issuer=timedelta(seconds=60), root=timedelta(seconds=600))
    leaf = a_leaf(an_issuer(ROOT), lifetimes=short).certificate
    assert T0 + timedelta(seconds=5) < renewal_at(leaf, short) <= T0 + timedelta(seconds=6)


def test_messages_hold_no_key_material() -> None:
    data = good()
    key_lines = data["tls.key"].split(b"\n")[1:-2]
    for make, _, _ in CASES.values():
        found = verdict(make())
        assert not any(line.decode() in str(found) for line in key_lines)
        assert "PRIVATE" not in str(found)
