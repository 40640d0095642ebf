"""Whether a credential in a Secret is kept or issued anew: an ordered chain of small checks, first finding wins.

The Secret is parsed once, before the chain; every check is a pure function of what was parsed and of `now`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from cryptography import x509

from ca.profile import Lifetimes, Subject
from ca.slots import issued_at
from ca.verify import chain_fault, expected_names, names_in
from mesh.svid import Credential, SvidError, TrustBundle, parse_credential


class Reason(StrEnum):
    """Why a certificate is issued. A closed vocabulary: log field, metric label."""

    MISSING = "missing"
    MALFORMED = "malformed"
    WRONG_IDENTITY = "wrong_identity"
    KEY_MISMATCH = "key_mismatch"
    UNTRUSTED = "untrusted"
    EXPIRING = "expiring"
    BUNDLE_STALE = "bundle_stale"


@dataclass(frozen=True, slots=True)
class Keep:
    """The credential stays until `renew_at`."""

    renew_at: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Issue:
    """A new one is needed; the message says why in plain words."""

    reason: Reason
    message: str


Verdict = Keep | Issue


@dataclass(frozen=True, slots=True)
class _Case:
    credential: Credential
    subject: Subject
    bundle: TrustBundle
    lifetimes: Lifetimes
    now: datetime


def judge(
    data: Mapping[str, bytes] | None, subject: Subject, bundle: TrustBundle, lifetimes: Lifetimes, now: datetime
) -> Verdict:
    """What to do about the Secret `data` (None: there is no Secret) that should hold a credential of `subject`.

    `bundle` is what is trusted now.
    """
    if data is None:
        return Issue(Reason.MISSING, f"there is no certificate of {subject} yet")
    try:
        credential = parse_credential(data)
    except SvidError as error:
        return Issue(Reason.MALFORMED, error.message)
    case = _Case(credential, subject, bundle, lifetimes, now)
    for check in CHAIN:
        finding = check(case)
        if finding is not None:
            return finding
    leaf = credential.leaf
    return Keep(renewal_at(leaf, lifetimes), leaf.not_valid_after_utc)


def renewal_at(leaf: x509.Certificate, lifetimes: Lifetimes) -> datetime:
    """When `leaf` is renewed: at `renew_at` of its life, less a share of up to `jitter` of it.

    The share comes from the serial, so it is the same at each look and after each restart. Drawn anew each time it
    could put the renewal off for ever, and a restart would renew many at once.
    """
    start = issued_at(leaf, lifetimes)
    life = leaf.not_valid_after_utc - start
    fraction = (leaf.serial_number & 0xFFFFFFFF) / 0x1_0000_0000  # the low bits are as random as all others
    return start + life * (lifetimes.renew_at - lifetimes.jitter * fraction)


def _wrong_identity(case: _Case) -> Issue | None:
    found = names_in(case.credential.leaf.extensions)
    if found != expected_names(case.subject):
        listed = ", ".join(text for _, text in found) or "nothing"
        return Issue(Reason.WRONG_IDENTITY, f"the certificate names {listed}, not {case.subject}")
    return None


def _key_mismatch(case: _Case) -> Issue | None:
    if not case.credential.key_fits:
        return Issue(Reason.KEY_MISMATCH, "the private key is not the one that the certificate names")
    return None


def _untrusted(case: _Case) -> Issue | None:
    """An issuer that has been followed by another is still good; what counts is a root that peers trust."""
    # Own expiry has its own reason, so it is judged at the last moment of validity here.
    moment = min(case.now, case.credential.leaf.not_valid_after_utc)
    fault = chain_fault(case.credential.leaf, case.credential.issuers, case.bundle, moment)
    return Issue(Reason.UNTRUSTED, fault) if fault else None


def _expiring(case: _Case) -> Issue | None:
    leaf = case.credential.leaf
    if case.now >= renewal_at(leaf, case.lifetimes):
        return Issue(Reason.EXPIRING, f"the certificate ends at {leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}")
    return None


def _bundle_stale(case: _Case) -> Issue | None:
    lacking = len(case.bundle.without(case.credential.bundle))
    if lacking:
        return Issue(Reason.BUNDLE_STALE, f"the bundle lacks {lacking} root(s) that are trusted now")
    return None


CHAIN: Final[tuple[Callable[[_Case], Issue | None], ...]] = (
    _wrong_identity,  # names somebody else, or more than it should
    _key_mismatch,  # could not complete one handshake
    _untrusted,  # signed by nobody that peers know
    _expiring,  # 2/3 of its life is over
    _bundle_stale,  # would refuse peers under a newer root
)
