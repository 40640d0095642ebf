"""Whether the certificates of the control plane are valid, for how long, and whether everybody trusts the right root.

Only certificates are read out of Secrets here, never a key.
"""

import base64
from datetime import timedelta
from typing import Final

from cryptography import x509

from ca.profile import Constraints
from ca.verify import chain_fault, expected_names, names_in
from cli.checks.model import Check, Finding, Result, Section, Verdict, fail, of_findings, ok, warn
from cli.checks.view import View
from kube.kinds import Secret
from mesh import names
from mesh.spiffe import TrustDomain
from mesh.svid import SvidError, TrustBundle, parse_certificates

# A certificate is renewed when a third of its life is left; with a tenth left nobody renews it any more.
_SHARE_LEFT: Final = 0.1


async def _root(view: View) -> Result:
    return await _authority(view, names.ROOT_SECRET)


async def _issuer(view: View) -> Result:
    result = await _authority(view, names.ISSUER_SECRET)
    if result.verdict is Verdict.FAIL:
        return result
    issuer, *above = await _chain(view, names.ISSUER_SECRET)
    fault = chain_fault(issuer, above, await view.bundle(), view.now)
    return fail(fault, f"{view.kubectl} logs deployment/{names.CA}") if fault else result


async def _authority(view: View, secret: str) -> Result:
    return _validity((await _chain(view, secret))[0], view)


async def _webhook(view: View) -> Result:
    return await _serving(view, names.WEBHOOK_TLS_SECRET)


async def _discovery(view: View) -> Result:
    return await _serving(view, names.DISCOVERY_TLS_SECRET)


async def _serving(view: View, secret: str) -> Result:
    leaf, *issuers = await _chain(view, secret)
    hint = f"{view.kubectl} delete secret {secret}: the CA makes it anew"
    config = await view.config()
    constraints = Constraints(TrustDomain.parse(config.trust_domain), view.control_plane)
    wanted = constraints.serving_names(names.SERVING_SECRETS[secret])
    if names_in(leaf.extensions) != expected_names(wanted):
        return fail(f"it is not a certificate of {wanted}", hint)
    fault = chain_fault(leaf, issuers, await view.bundle(), view.now)
    return fail(fault, hint) if fault else _validity(leaf, view)


async def _ca_bundle(view: View) -> Result:
    """Every entry of both registrations must hold all roots that are trusted now, or a call ends in the handshake."""
    findings: list[Finding] = []
    trusted = await view.bundle()
    hint = f"the CA repairs it; {view.kubectl} logs deployment/{names.CA}"
    for name in (names.REGISTRATION, names.STRICT_REGISTRATION):
        registration = await view.registration(name)
        for webhook in (registration.webhooks if registration else None) or ():
            fault = _bundle_fault(webhook.client_config.ca_bundle, trusted)
            if fault:
                findings.append(Finding(Verdict.FAIL, f"{name}: {webhook.name}", fault, hint))
    return of_findings(findings, f"{len(trusted.roots)} root(s)", "entries would refuse the webhook's certificate")


def _bundle_fault(encoded: str | None, trusted: TrustBundle) -> str | None:
    if not encoded:
        return "it has no caBundle"
    try:
        held = TrustBundle.parse(base64.b64decode(encoded))
    except (ValueError, SvidError):
        return "its caBundle cannot be read"
    lacking = len(trusted.without(held))
    return f"its caBundle lacks {lacking} of {len(trusted.roots)} root(s)" if lacking else None


async def _chain(view: View, secret: str) -> tuple[x509.Certificate, ...]:
    """The certificates of a Secret of the control plane. Raises SvidError when there are none."""
    found = await view.find(f"/api/v1/namespaces/{view.control_plane}/secrets/{secret}", Secret)
    if found is None:
        raise SvidError(f"Secret {secret} is not there", hint=f"{view.kubectl} logs deployment/{names.CA}")
    pem = base64.b64decode((found.data or {}).get(names.TLS_CERT_KEY, ""))
    return parse_certificates(pem, f"Secret {secret}, {names.TLS_CERT_KEY}")


def _validity(certificate: x509.Certificate, view: View) -> Result:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    left = end - view.now
    hint = f"{view.kubectl} logs deployment/{names.CA} says why it is not renewed"
    if left <= timedelta(0):
        return fail(f"it expired {_days(-left)} ago", hint)
    if view.now < begin:
        return fail(f"it is valid only from {begin:%Y-%m-%d %H:%M} UTC", "compare the clocks of the nodes")
    if left < _SHARE_LEFT * (end - begin):
        return warn(f"{_days(left)} left of {_days(end - begin)}", hint)
    return ok(f"{_days(left)} left")


def _days(span: timedelta) -> str:
    """In days, or in hours or seconds where that is less than two days."""
    seconds = span.total_seconds()
    if seconds >= 2 * 86400:
        return f"{seconds / 86400:.0f} days"
    return f"{seconds / 3600:.0f} hours" if seconds >= 7200 else f"{seconds:.0f} seconds"


SECTION: Final = Section(
    "certificates",
    (
        Check("root-certificate", "the root is valid", _root),
        Check("issuer-certificate", "the issuer is valid and signed by the root", _issuer),
        Check("webhook-certificate", "the webhook's certificate is valid and signed by the issuer", _webhook),
        Check("discovery-certificate", "discovery's certificate is valid and signed by the issuer", _discovery),
        Check("ca-bundle", "the API server trusts the webhook", _ca_bundle),
    ),
)
