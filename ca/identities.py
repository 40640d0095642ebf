"""One identity at a time: what its Secret holds against what it should hold, and the one write that closes the gap.

Writes are a create where nothing was seen, or an apply that holds only for the version that was seen. So nothing
that this process has not looked at is ever written over, whatever the age of its mirror.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec
import structlog

from ca import metrics
from ca.demand import Account, Demand, Need
from ca.edge import Edge
from ca.foreign import Foreigners
from ca.policy import Issue, Keep, Reason, judge, renewal_at
from ca.secret import DECODE_SECRET, Manifest, OwnSecret, credential_data, identity_secret, is_ours
from ca.trust import Trust, TrustKeeper
from kube import apply as write
from kube.errors import AlreadyExistsError, ConflictError, NotFoundError
from kube.kinds import Bare
from mesh import names

# How long an identity stays after the last thing that needed it: a ServiceAccount that is deleted and made again
# (helm upgrade --force, a GitOps sync) keeps its Secret, and so does a pod that starts at this very moment.
REMOVAL_DELAY: Final = timedelta(minutes=1)
# A foreign object is seen in no watch of ours, so its removal is found by looking.
FOREIGN_LOOK_AGAIN: Final = timedelta(minutes=5)

_WRITTEN: Final = msgspec.json.Decoder(Bare)
_log: Final = structlog.get_logger("ca.identities")


@dataclass(frozen=True, slots=True)
class _Held:
    """What is known about a Secret of one version: judged once, not at every look."""

    resource_version: str
    renew_at: datetime
    not_after: datetime


class Identities:
    """Keeps the identity Secrets of the cluster. `mirror` is the Secrets of ours as last seen, by `namespace/name`."""

    def __init__(
        self,
        edge: Edge,
        demand: Demand,
        keeper: TrustKeeper,
        mirror: Mapping[str, OwnSecret],
        foreigners: Foreigners,
    ) -> None:
        self._edge, self._demand, self._keeper = edge, demand, keeper
        self._mirror = mirror
        self._foreigners = foreigners
        self._held: dict[Account, _Held] = {}
        self._unneeded: dict[Account, datetime] = {}

    def knows(self, account: Account, resource_version: str) -> bool:
        """True for a version that this process wrote or judged itself: its echo needs no second look."""
        held = self._held.get(account)
        return held is not None and held.resource_version == resource_version

    def forget_versions(self) -> None:
        """After a change of trust everything is judged again."""
        self._held.clear()

    @property
    def first_end(self) -> datetime | None:
        """When the first leaf ends."""
        return min((held.not_after for held in self._held.values()), default=None)

    @property
    def count(self) -> int:
        return len(self._held)

    async def reconcile(self, account: Account) -> datetime | None:
        """Closes the gap of one account; when to look again. Raises ApiError and IssueError."""
        trust = self._keeper.trust
        if trust is None:
            return None  # everything is added again once there is one
        secret = self._mirror.get(f"{account.namespace}/{names.identity_secret_name(account.name)}")
        need = self._demand.need(account)
        if need is Need.NONE:
            return await self._remove_later(account, secret, trust)
        self._unneeded.pop(account, None)
        if secret is None:
            return await self._create(account, trust) if need is Need.WANTED else self._forget(account)
        return await self._update(account, secret, trust, need)

    async def _create(self, account: Account, trust: Trust) -> datetime | None:
        reason = Reason.MISSING
        manifest, renew_at, not_after = self._issue(account, trust)
        try:
            body = await write.create(self._edge.api, manifest, manager=names.CA_FIELD_MANAGER)
        except AlreadyExistsError:
            # Not in the mirror, yet there: our mirror is late, or it is not ours. Only the object itself can tell.
            secret = await self._read(account)
            return await self._update(account, secret, trust, Need.WANTED) if secret else self._edge.clock()
        return self._wrote(account, body, reason, renew_at, not_after)

    async def _update(self, account: Account, secret: OwnSecret, trust: Trust, need: Need) -> datetime | None:
        key = f"{account.namespace}/{secret.metadata.name}"
        if not is_ours(secret, self._edge.owner, trust.recognized):
            self._held.pop(account, None)
            self._foreigners.found("Secret", secret.metadata)
            return self._edge.clock() + FOREIGN_LOOK_AGAIN
        self._foreigners.gone("Secret", key)
        verdict = self._judge(account, secret, trust)
        if isinstance(verdict, Keep):
            self._held[account] = _Held(secret.metadata.resource_version, verdict.renew_at, verdict.not_after)
            return verdict.renew_at
        if need is Need.IDLE:
            return await self._remove(account, secret)
        return await self._apply(account, secret, trust, verdict)

    def _judge(self, account: Account, secret: OwnSecret, trust: Trust) -> Keep | Issue:
        if secret.metadata.annotation(names.SERVICE_ACCOUNT_ANNOTATION) != account.name:
            return Issue(Reason.WRONG_IDENTITY, "the Secret does not name its ServiceAccount")
        subject = self._edge.trust_domain.workload(account.namespace, account.name)
        return judge(secret.decoded(), subject, trust.bundle, self._edge.lifetimes, self._edge.clock())

    async def _apply(self, account: Account, secret: OwnSecret, trust: Trust, verdict: Issue) -> datetime | None:
        manifest, renew_at, not_after = self._issue(account, trust, secret.metadata.resource_version)
        try:
            body = await write.apply(self._edge.api, manifest, manager=names.CA_FIELD_MANAGER)
        except ConflictError:
            # Changed or deleted since it was seen. The change reaches the mirror; what it is decides the rest.
            live = await self._read(account)
            if live is None or live.metadata.resource_version == secret.metadata.resource_version:
                raise
            return await self._update(account, live, trust, Need.WANTED)
        if verdict.reason is not Reason.EXPIRING:
            _log.info(
                "identity_repaired",
                ns=account.namespace,
                sa=account.name,
                reason=verdict.reason.value,
                detail=verdict.message,
            )
        return self._wrote(account, body, verdict.reason, renew_at, not_after)

    def _issue(
        self, account: Account, trust: Trust, resource_version: str | None = None
    ) -> tuple[Manifest, datetime, datetime]:
        subject = self._edge.trust_domain.workload(account.namespace, account.name)
        issued = trust.issuer.issue(
            subject, key=self._edge.new_key(), serial=self._edge.new_serial(), now=self._edge.clock()
        )
        data = credential_data(issued.chain_pem, issued.key_pem, trust.bundle)
        manifest = identity_secret(
            self._edge.owner, account.namespace, account.name, data, resource_version=resource_version
        )
        leaf = issued.certificate
        return manifest, renewal_at(leaf, self._edge.lifetimes), leaf.not_valid_after_utc

    def _wrote(
        self, account: Account, body: bytes, reason: Reason, renew_at: datetime, not_after: datetime
    ) -> datetime:
        version = _WRITTEN.decode(body).metadata.resource_version
        self._held[account] = _Held(version, renew_at, not_after)
        self._foreigners.gone("Secret", f"{account.namespace}/{names.identity_secret_name(account.name)}")
        metrics.ISSUED.labels(reason.value).inc()
        return renew_at

    async def _remove_later(self, account: Account, secret: OwnSecret | None, trust: Trust) -> datetime | None:
        if secret is None:
            return self._forget(account)
        now = self._edge.clock()
        due = self._unneeded.setdefault(account, now + REMOVAL_DELAY)
        if now < due:
            return due
        if not is_ours(secret, self._edge.owner, trust.recognized):
            return self._forget(account)
        return await self._remove(account, secret)

    async def _remove(self, account: Account, secret: OwnSecret) -> None:
        meta = secret.metadata
        path = write.object_path("v1", "secrets", meta.name, account.namespace)
        try:
            await write.delete(self._edge.api, path, uid=meta.uid, resource_version=meta.resource_version)
        except NotFoundError:
            pass
        else:
            metrics.REMOVED.inc()
            _log.info("identity_removed", ns=account.namespace, sa=account.name)
        self._forget(account)

    def _forget(self, account: Account) -> None:
        self._held.pop(account, None)
        self._unneeded.pop(account, None)
        # A foreign object in the place of an identity that nobody needs is in nobody's way.
        self._foreigners.gone("Secret", f"{account.namespace}/{names.identity_secret_name(account.name)}")

    async def _read(self, account: Account) -> OwnSecret | None:
        path = write.object_path("v1", "secrets", names.identity_secret_name(account.name), account.namespace)
        try:
            return DECODE_SECRET.decode(await self._edge.api.request("GET", path))
        except NotFoundError:
            return None
