"""The control plane's serving certificates, and what the API server needs to trust the webhook's.

Edge of `ca.registration`.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import structlog

from ca import metrics
from ca.bundle import ca_bundle
from ca.edge import Edge
from ca.foreign import Foreigners
from ca.identities import FOREIGN_LOOK_AGAIN
from ca.policy import Keep, Reason, judge, renewal_at
from ca.registration import API_VERSION, TEMPLATE_KEY, ca_bundle_patch, holds, strict_registration
from ca.secret import OwnSecret, credential_data, is_ours, tls_secret
from ca.trust import Trust, TrustKeeper
from kube import apply as write
from kube.errors import AlreadyExistsError, NotFoundError
from kube.kinds import ConfigMap, MutatingWebhookConfiguration
from mesh import names

_log: Final = structlog.get_logger("ca.serving")


class ServingCertificates:
    """Keeps the Secrets of names.SERVING_SECRETS; `mirror` is the TLS Secrets of the control plane."""

    def __init__(
        self, edge: Edge, keeper: TrustKeeper, mirror: Mapping[str, OwnSecret], foreigners: Foreigners
    ) -> None:
        self._edge, self._keeper, self._mirror, self._foreigners = edge, keeper, mirror, foreigners

    async def reconcile(self, name: str) -> datetime | None:
        """When to look at the Secret `name` again.

        Raises ApiError (a conflict included: the next look sees what changed) and IssueError.
        """
        trust = self._keeper.trust
        if trust is None:
            return None
        service = names.SERVING_SECRETS[name]
        secret = self._mirror.get(f"{self._edge.namespace}/{name}")
        subject = self._edge.constraints.serving_names(service)
        if secret is not None and not is_ours(secret, self._edge.owner, trust.recognized):
            self._foreigners.found("Secret", secret.metadata)
            return self._edge.clock() + FOREIGN_LOOK_AGAIN
        data = secret.decoded() if secret else None
        verdict = judge(data, subject, trust.bundle, self._edge.lifetimes, self._edge.clock())
        if isinstance(verdict, Keep):
            metrics.SERVING_NOT_AFTER.labels(service).set(verdict.not_after.timestamp())
            return verdict.renew_at
        return await self._issue(trust, name, secret, verdict.reason)

    async def _issue(self, trust: Trust, name: str, secret: OwnSecret | None, reason: Reason) -> datetime:
        service = names.SERVING_SECRETS[name]
        subject = self._edge.constraints.serving_names(service)
        issued = trust.issuer.issue(
            subject, key=self._edge.new_key(), serial=self._edge.new_serial(), now=self._edge.clock()
        )
        manifest = tls_secret(
            self._edge.owner,
            self._edge.namespace,
            name,
            credential_data(issued.chain_pem, issued.key_pem, trust.bundle),
            resource_version=secret.metadata.resource_version if secret else None,
        )
        if secret is None:
            await write.create(self._edge.api, manifest, manager=names.CA_FIELD_MANAGER)
        else:
            await write.apply(self._edge.api, manifest, manager=names.CA_FIELD_MANAGER)
        metrics.SERVING_NOT_AFTER.labels(service).set(issued.certificate.not_valid_after_utc.timestamp())
        _log.info("serving_certificate_issued", service=service, reason=reason.value)
        return renewal_at(issued.certificate, self._edge.lifetimes)


class Registrations:
    """Keeps `caBundle` of both registrations, and the strict registration itself."""

    def __init__(
        self,
        edge: Edge,
        keeper: TrustKeeper,
        registrations: Mapping[str, MutatingWebhookConfiguration],
        templates: Mapping[str, ConfigMap],
        foreigners: Foreigners,
    ) -> None:
        self._edge, self._keeper = edge, keeper
        self._registrations, self._templates, self._foreigners = registrations, templates, foreigners
        self._settled: tuple[str, str, str] | None = None

    async def reconcile(self) -> None:
        """Raises ApiError, and AuthorityError for a template that is none."""
        trust = self._keeper.trust
        optional = self._registrations.get(names.REGISTRATION)
        if trust is None or optional is None:
            return  # not installed yet, or uninstalled: the strict one goes with its owner
        if not holds(optional, trust.bundle):
            patch = ca_bundle_patch(optional, trust.bundle)
            await write.apply(self._edge.api, patch, manager=names.CA_FIELD_MANAGER)
            _log.info("ca_bundle_set", registration=names.REGISTRATION, roots=len(trust.bundle.roots))
        await self._strict(optional, trust)

    async def _strict(self, optional: MutatingWebhookConfiguration, trust: Trust) -> None:
        template = self._templates.get(f"{self._edge.namespace}/{names.STRICT_REGISTRATION_TEMPLATE}")
        text = (template.data or {}).get(TEMPLATE_KEY) if template else None
        seen = self._registrations.get(names.STRICT_REGISTRATION)
        if seen is not None and not self._edge.owner.labelled(seen.metadata):
            self._foreigners.found("MutatingWebhookConfiguration", seen.metadata)
            return
        self._foreigners.gone("MutatingWebhookConfiguration", names.STRICT_REGISTRATION)
        if text is None:
            if seen is not None:
                await self._remove(seen)
            return
        settled = (
            seen.metadata.resource_version if seen else "",
            text + optional.metadata.uid,
            ca_bundle(trust.bundle),
        )
        if settled == self._settled:
            return
        manifest = strict_registration(text, self._edge.owner, optional, trust.bundle)
        if seen is None:
            try:
                await write.create(self._edge.api, manifest, manager=names.CA_FIELD_MANAGER)
            except AlreadyExistsError:
                return  # it arrives in the mirror, and with it the next look
            _log.info("strict_registration_made")
            return
        # With its uid an apply cannot make anew what an uninstall has just taken along.
        manifest["metadata"]["uid"] = seen.metadata.uid
        await write.apply(self._edge.api, manifest, manager=names.CA_FIELD_MANAGER)
        self._settled = settled

    async def _remove(self, seen: MutatingWebhookConfiguration) -> None:
        path = write.object_path(API_VERSION, "mutatingwebhookconfigurations", seen.metadata.name)
        try:
            await write.delete(self._edge.api, path, uid=seen.metadata.uid)
        except NotFoundError:
            return
        _log.info("strict_registration_removed")
