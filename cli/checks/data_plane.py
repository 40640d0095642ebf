"""Whether the proxies do what they are there for: connected to discovery, serving the identity that was issued."""

import asyncio
import base64
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from ca.profile import Lifetimes
from ca.slots import issued_at
from cli.checks.model import Check, Finding, Result, Section, Verdict, fail, of_findings, ok, warn
from cli.checks.plaintext import plaintext_to_meshed
from cli.checks.proxies import Proxy, read_proxies
from cli.checks.view import View
from cli.checks.workload import owner_of
from cli.served import ARRIVAL, told
from kube.errors import ForbiddenError
from kube.kinds import Secret
from mesh import names
from mesh.svid import SvidError, parse_certificates

# A proxy that has just started, or whose identity has just come, is not behind yet.
_SETTLE_S: Final = 30
_CONCURRENCY: Final = 8
# What a renewal may take beyond its latest moment before somebody should look.
_RENEWAL_SLACK: Final = 0.05


async def _answer(view: View) -> Result:
    proxies = await read_proxies(view)
    findings = [
        Finding(Verdict.FAIL, each.name, each.fault, f"port {names.STATUS_PORT}; {_logs(each)}")
        for each in proxies
        if each.fault
    ]
    return of_findings(findings, f"{len(proxies)} proxies", "proxies do not answer")


async def _connected(view: View) -> Result:
    """A proxy without discovery keeps what it has; one that never had it passes everything through in plaintext."""
    answered = [each for each in await read_proxies(view) if not each.fault]
    findings: list[Finding] = []
    for each in answered:
        if each.connected:
            continue
        if each.leaf_ends is None:
            message = "it has no certificate yet, so discovery does not answer it"
            hint = "see `identities` and `identities-served`"
        else:
            message = f"it is not connected to discovery (runs for {told(timedelta(seconds=each.uptime_s))})"
            hint = f"{view.kubectl} get pods; a NetworkPolicy may forbid port {names.XDS_PORT}; {_logs(each)}"
        verdict = Verdict.WARN if each.uptime_s < _SETTLE_S else Verdict.FAIL
        findings.append(Finding(verdict, each.name, message, hint))
    return of_findings(findings, f"{len(answered)} proxies", "proxies have no connection to discovery")


async def _served(view: View) -> Result:
    """Compared by the end of validity, which Envoy tells to the second: certificates of one account do not share it."""
    answered = [each for each in await read_proxies(view) if not each.fault]
    issued = await _issued(view, answered)
    lifetimes = Lifetimes.of((await view.config()).identity)
    findings = [found for each in answered if (found := _served_fault(each, issued, lifetimes, view.now))]
    return of_findings(
        findings, f"{len(answered)} proxies", "proxies serve another certificate than was issued, or none"
    )


def _served_fault(
    proxy: Proxy, issued: Mapping[tuple[str, str], x509.Certificate], lifetimes: Lifetimes, now: datetime
) -> Finding | None:
    pod = proxy.pod
    leaf = issued.get(_account(proxy))
    age = now - issued_at(leaf, lifetimes) if leaf else None
    look = f"autotls identity {pod.metadata.name} -n {pod.metadata.namespace}"
    arriving = age is not None and age <= ARRIVAL
    if proxy.leaf_ends is None:
        if leaf is None:
            return Finding(Verdict.FAIL, proxy.name, "it has no certificate, and none was issued", "see `identities`")
        message = f"it has no certificate; one was issued {told(age or timedelta(0))} ago"
        hint = "the kubelet brings it within 90 s" if arriving else f"{look}; else {owner_of(pod).restart}"
        return Finding(Verdict.WARN if arriving else Verdict.FAIL, proxy.name, message, hint)
    if proxy.leaf_ends <= now:
        message = f"its certificate expired {told(now - proxy.leaf_ends)} ago"
        return Finding(Verdict.FAIL, proxy.name, message, look)
    if leaf is None or age is None or leaf.not_valid_after_utc == proxy.leaf_ends or arriving:
        return None
    message = f"it lags: another certificate was issued {told(age)} ago"
    return Finding(Verdict.WARN, proxy.name, message, look)


async def _issued(view: View, proxies: list[Proxy]) -> Mapping[tuple[str, str], x509.Certificate]:
    """By namespace and ServiceAccount; only certificates are decoded. Empty where Secrets may not be read."""
    gate = asyncio.Semaphore(_CONCURRENCY)

    async def look(key: tuple[str, str]) -> x509.Certificate | None:
        async with gate:
            path = f"/api/v1/namespaces/{key[0]}/secrets/{names.identity_secret_name(key[1])}"
            found = await view.find(path, Secret)
        try:
            pem = base64.b64decode((found.data or {}).get(names.TLS_CERT_KEY, "")) if found else b""
            return parse_certificates(pem, names.TLS_CERT_KEY)[0]
        except (SvidError, ValueError):
            return None

    keys = sorted({_account(each) for each in proxies})
    try:
        found = await asyncio.gather(*(look(key) for key in keys))
    except ForbiddenError:
        return {}
    return {key: leaf for key, leaf in zip(keys, found, strict=True) if leaf}


async def _budget(view: View) -> Result:
    """How long nobody would notice that the CA is gone: until the first certificate that is served ends."""
    ends = [(each.leaf_ends, each) for each in await read_proxies(view) if each.leaf_ends]
    if not ends:
        return ok("no proxy serves a certificate")
    end, first = min(ends, key=lambda pair: pair[0])
    left = end - view.now
    lifetimes = Lifetimes.of((await view.config()).identity)
    if left <= timedelta(0):
        return fail(f"the certificate of {first.name} has expired", f"{view.kubectl} logs deployment/{names.CA}")
    message = f"{told(left)}, until the certificate of {first.name} ends"
    # In good order each is renewed at `renew_at` of its life at the latest, and there ARRIVAL later.
    least = lifetimes.leaf * (1 - lifetimes.renew_at - _RENEWAL_SLACK) - ARRIVAL
    if left < least:
        hint = f"renewal is late; {view.kubectl} logs deployment/{names.CA}, and see `identities-served`"
        return warn(f"{message}; {told(least)} are normal", hint)
    return ok(message)


def _account(proxy: Proxy) -> tuple[str, str]:
    return proxy.pod.metadata.namespace, proxy.pod.spec.service_account


def _logs(proxy: Proxy) -> str:
    metadata = proxy.pod.metadata
    return f"kubectl -n {metadata.namespace} logs {metadata.name} -c {names.PROXY_CONTAINER}"


SECTION: Final = Section(
    "data plane",
    (
        Check("proxies-answer", "every proxy answers", _answer),
        Check("proxies-connected", "every proxy is connected to discovery", _connected),
        Check("identities-served", "every proxy serves the certificate that was issued", _served),
        Check("plaintext-to-meshed", "no pod with a sidecar was reached in plaintext by another", plaintext_to_meshed),
        Check("outage-budget", "the CA may be away for a while", _budget),
    ),
)
