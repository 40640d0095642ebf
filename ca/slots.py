"""When root and issuer are followed by their successors: pure functions of times.

A root has two slots, current and next. The next one is prepared (trusted by everybody, signing nothing) long
before it is activated (signs issuers), and the former one stays trusted to its end. So at every moment every leaf
leads to a root that its peers have held for a while. An issuer needs one slot only: it travels with each leaf,
and peers look at the root alone.

    root A   |------------------- signs ------------------|--------- trusted ---------|
    root B                              |---- trusted ----|-------------- signs --------------
                                        prepare           activate                    A ends
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from cryptography import x509

from ca.authority import Authority, RootState
from ca.profile import Lifetimes
from ca.verify import signed_by

# How long a new root is trusted before anything is signed under it, at least: the kubelet brings a changed Secret
# into a pod within its sync period plus cache TTL (about 90 s), and the CA first has to write them all.
PROPAGATION: Final = timedelta(hours=1)


class Step(StrEnum):
    """The one thing to do next about root and issuer."""

    MAKE_ROOT = "make_root"
    PREPARE_ROOT = "prepare_root"
    ACTIVATE_ROOT = "activate_root"
    MAKE_ISSUER = "make_issuer"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Plan:
    """A step, or nothing until `due`."""

    step: Step
    due: datetime


def prepare_at(root: x509.Certificate, lifetimes: Lifetimes) -> datetime:
    """When the successor of `root` is made: half a life before its end, three issuer lives at most."""
    return root.not_valid_after_utc - min(_life(root, lifetimes) / 2, 3 * lifetimes.issuer)


def activate_at(root: x509.Certificate, successor: x509.Certificate, lifetimes: Lifetimes) -> datetime:
    """When `successor` takes over: a third of a life before the end of `root`, two issuer lives at most, so that
    no issuer is cut short by its root; never before it has been trusted for PROPAGATION (or a twelfth of a life,
    for roots that live for minutes in a test); at once when `root` has ended, since nothing is left to protect."""
    planned = root.not_valid_after_utc - min(_life(root, lifetimes) / 3, 2 * lifetimes.issuer)
    known = issued_at(successor, lifetimes) + min(PROPAGATION, _life(root, lifetimes) / 12)
    return min(max(planned, known), root.not_valid_after_utc)


def issuer_renewal_at(issuer: x509.Certificate, lifetimes: Lifetimes) -> datetime:
    """When the issuer's successor is made: at `renew_at` of its life, and while it could still sign a full leaf."""
    planned = issued_at(issuer, lifetimes) + _life(issuer, lifetimes) * lifetimes.renew_at
    full_leaf = issuer.not_valid_after_utc - lifetimes.leaf
    return max(min(planned, full_leaf), issued_at(issuer, lifetimes) + _life(issuer, lifetimes) / 3)


def plan(root: RootState | None, issuer: Authority | None, now: datetime, lifetimes: Lifetimes) -> Plan:
    """The next step, given what the Secrets hold (None: there is no such Secret)."""
    if root is None:
        return Plan(Step.MAKE_ROOT, now)
    current = root.current.certificate
    if root.next is None:
        root_due, root_step = prepare_at(current, lifetimes), Step.PREPARE_ROOT
    else:
        root_due, root_step = activate_at(current, root.next.certificate, lifetimes), Step.ACTIVATE_ROOT
    if root_due <= now:
        return Plan(root_step, root_due)
    if issuer is None or not signed_by(issuer.certificate, current):
        return Plan(Step.MAKE_ISSUER, now)
    issuer_due = issuer_renewal_at(issuer.certificate, lifetimes)
    if issuer_due <= now and _gains(issuer.certificate, current, now, lifetimes):
        return Plan(Step.MAKE_ISSUER, issuer_due)
    return Plan(Step.NOTHING, min(root_due, issuer_due) if issuer_due > now else root_due)


def issued_at(certificate: x509.Certificate, lifetimes: Lifetimes) -> datetime:
    """When a certificate of ours was made: its notBefore without the backdating. With lives of seconds the
    backdating is most of the validity, and shares of a life would otherwise lie before its beginning."""
    made = certificate.not_valid_before_utc + lifetimes.skew
    return made if made < certificate.not_valid_after_utc else certificate.not_valid_before_utc


def _life(certificate: x509.Certificate, lifetimes: Lifetimes) -> timedelta:
    return certificate.not_valid_after_utc - issued_at(certificate, lifetimes)


def _gains(issuer: x509.Certificate, root: x509.Certificate, now: datetime, lifetimes: Lifetimes) -> bool:
    """False when a new issuer would end where this one does, at the end of the root: renewing would never stop."""
    return min(now + lifetimes.issuer, root.not_valid_after_utc) > issuer.not_valid_after_utc
