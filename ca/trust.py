"""The root and the issuer of this installation: made once, followed by their successors, kept when spoiled.

Every look reads both Secrets from the API server itself, not from a mirror: there are few looks, and a second root
would be the worst fault this process could commit. Racing replicas are decided by create-if-absent and by
resourceVersions; who loses takes what the winner wrote.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from ca import metrics, slots
from ca.authority import Authority, RootState, first_root, issuer_data, parse_issuer, parse_root
from ca.edge import Edge
from ca.errors import AuthorityError
from ca.issuer import LeafIssuer, make_issuer, make_root
from ca.secret import DECODE_SECRET, OwnSecret, tls_secret
from ca.slots import Step
from kube import apply as write
from kube.errors import AlreadyExistsError, ConflictError, NotFoundError
from mesh import names
from mesh.svid import SvidError, TrustBundle

# How soon a spoiled Secret is looked at again when no change of it was seen.
_LOOK_AGAIN: Final = timedelta(minutes=1)
_MOST_STEPS: Final = 8

_log: Final = structlog.get_logger("ca.trust")


@dataclass(frozen=True, slots=True)
class Trust:
    """What leaves are issued with, what everybody trusts, and the roots by which our own objects are recognized:
    those that were trusted at any time of this term, since what a former root signed is still ours to repair."""

    issuer: LeafIssuer
    bundle: TrustBundle
    recognized: TrustBundle


class TrustKeeper:
    """Owns the state of root and issuer. `on_change` is called when the bundle is another one than before."""

    def __init__(self, edge: Edge, on_change: Callable[[], None]) -> None:
        self._edge = edge
        self._on_change = on_change
        self._root: RootState | None = None
        self.trust: Trust | None = None
        self.fault = ""

    async def keep(self) -> datetime:
        """Brings root and issuer to where they should be now; when to look again.

        Raises ApiError. A Secret that cannot be used is reported in `fault`, and what was good before goes on.
        """
        try:
            due = await (self._read_external() if self._edge.config.identity.external_issuer else self._keep_own())
        except (AuthorityError, SvidError) as error:
            if self.fault != str(error):
                _log.error("authority_unusable", error=error.message, hint=error.hint, working=self.trust is not None)
            self.fault = str(error)
            metrics.AUTHORITY_FAULT.set(1)
            return self._edge.clock() + _LOOK_AGAIN
        self.fault = ""
        metrics.AUTHORITY_FAULT.set(0)
        return due

    async def _read_external(self) -> datetime:
        now = self._edge.clock()
        secret = await self._get(names.ISSUER_SECRET)
        if secret is None:
            raise AuthorityError(
                f"there is no Secret {names.ISSUER_SECRET}",
                hint="with identity.externalIssuer somebody else fills it: tls.crt, tls.key and ca.crt",
            )
        issuer, bundle = parse_issuer(secret.decoded(), now)
        if (root := await self._get(names.ROOT_SECRET)) is not None:
            extra = root.decoded().get(names.TRUST_BUNDLE_KEY) or root.decoded().get(names.TLS_CERT_KEY, b"")
            bundle = TrustBundle.of((*bundle.roots, *TrustBundle.parse(extra).roots))
        self._use(issuer, bundle.at(now))
        return now + _LOOK_AGAIN

    async def _keep_own(self) -> datetime:
        for _ in range(_MOST_STEPS):
            root_secret, issuer_secret = await self._get(names.ROOT_SECRET), await self._get(names.ISSUER_SECRET)
            now = self._edge.clock()
            if root_secret is None and self._root is not None:
                # Deleted under our hands. Another root would cut off every pod until its kubelet looks again.
                _log.warning("root_restored")
                await self._create(names.ROOT_SECRET, self._root.data())
                continue
            root = parse_root(root_secret.decoded()) if root_secret else None
            issuer = self._parse_issuer(issuer_secret, now)
            plan = slots.plan(root, issuer, now, self._edge.lifetimes)
            if plan.step is Step.NOTHING and root is not None and issuer is not None:
                self._root = root
                self._use(issuer, root.bundle.at(now))
                metrics.ROOT_NOT_AFTER.set(root.current.certificate.not_valid_after_utc.timestamp())
                return plan.due
            await self._do(plan.step, root, root_secret, issuer_secret)
        raise AuthorityError(
            "root and issuer did not come to rest", hint="somebody else keeps changing their Secrets; see managedFields"
        )

    def _parse_issuer(self, secret: OwnSecret | None, now: datetime) -> Authority | None:
        """An issuer that cannot be used is replaced: unlike a root, it costs nobody anything."""
        if secret is None:
            return None
        try:
            return parse_issuer(secret.decoded(), now)[0]
        except AuthorityError as error:
            _log.warning("issuer_replaced", error=error.message)
            return None

    async def _do(
        self, step: Step, root: RootState | None, root_secret: OwnSecret | None, issuer_secret: OwnSecret | None
    ) -> None:
        now, lifetimes = self._edge.clock(), self._edge.lifetimes
        key, serial = self._edge.new_key(), self._edge.new_serial()
        if root is None or step is Step.MAKE_ROOT:
            made = first_root(make_root(key=key, serial=serial, now=now, lifetimes=lifetimes))
            if await self._create(names.ROOT_SECRET, made.data()):
                metrics.ROOTS_MADE.inc()
                _log.info("root_made", not_after=made.current.certificate.not_valid_after_utc.isoformat())
        elif step is Step.PREPARE_ROOT:
            successor = make_root(key=key, serial=serial, now=now, lifetimes=lifetimes)
            await self._replace(names.ROOT_SECRET, root.prepared(successor).data(), root_secret)
            metrics.ROOTS_MADE.inc()
            _log.info("root_prepared", not_after=successor.certificate.not_valid_after_utc.isoformat())
        elif step is Step.ACTIVATE_ROOT:
            await self._replace(names.ROOT_SECRET, root.activated(now).data(), root_secret)
            _log.info("root_activated")
        else:
            issuer = make_issuer(
                root.current,
                key=key,
                serial=serial,
                now=now,
                lifetimes=lifetimes,
                constraints=self._edge.constraints,
            )
            await self._replace(names.ISSUER_SECRET, issuer_data(issuer, root.bundle.at(now)), issuer_secret)
            metrics.ISSUERS_MADE.inc()
            _log.info("issuer_made", not_after=issuer.certificate.not_valid_after_utc.isoformat())

    def _use(self, issuer: Authority, bundle: TrustBundle) -> None:
        before = self.trust
        if before is None or issuer != before.issuer.authority or bundle != before.bundle:
            former = before.recognized.roots if before else ()
            recognized = TrustBundle.of((*former, *bundle.roots))
            self.trust = Trust(LeafIssuer(issuer, self._edge.lifetimes), bundle, recognized)
            metrics.ISSUER_NOT_AFTER.set(issuer.certificate.not_valid_after_utc.timestamp())
            metrics.ROOTS.set(len(bundle.roots))
            if before is None or bundle != before.bundle:
                self._on_change()

    async def _get(self, name: str) -> OwnSecret | None:
        path = write.object_path("v1", "secrets", name, self._edge.namespace)
        try:
            return DECODE_SECRET.decode(await self._edge.api.request("GET", path))
        except NotFoundError:
            return None

    async def _create(self, name: str, data: dict[str, bytes]) -> bool:
        """False when somebody else was first: their object counts."""
        manifest = tls_secret(self._edge.owner, self._edge.namespace, name, data)
        try:
            await write.create(self._edge.api, manifest, manager=names.CA_FIELD_MANAGER)
        except AlreadyExistsError:
            return False
        return True

    async def _replace(self, name: str, data: dict[str, bytes], seen: OwnSecret | None) -> None:
        """Writes over what was seen, and over nothing else; a conflict is settled by the next look."""
        if seen is None:
            await self._create(name, data)
            return
        version = seen.metadata.resource_version
        manifest = tls_secret(self._edge.owner, self._edge.namespace, name, data, resource_version=version)
        try:
            await write.apply(self._edge.api, manifest, manager=names.CA_FIELD_MANAGER)
        except ConflictError:
            _log.info("authority_conflict", secret=name)
