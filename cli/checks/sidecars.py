"""Whether the sidecars that are there run, and have a good identity."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from ca.policy import Issue, Reason, judge
from ca.profile import Lifetimes
from ca.secret import Owner, OwnSecret, is_ours
from cli.checks.model import Check, Finding, Result, Section, Verdict, of_findings
from cli.checks.view import View
from cli.checks.workload import owner_of
from mesh import names
from mesh.config import MeshConfig
from mesh.pod import Container, Pod
from mesh.spiffe import TrustDomain
from mesh.svid import TrustBundle
from mesh.version import VERSION

_OURS: Final = frozenset({names.INIT_CONTAINER, names.PROXY_CONTAINER})
_PULL_REASONS: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
# The kubelet re-reads Secrets within its sync period and cache TTL, about 60-90 s; the CA needs seconds.
_ARRIVAL: Final = timedelta(seconds=90)
# One Secret is one request; a cluster with a thousand ServiceAccounts must not wait for them one by one.
_CONCURRENCY: Final = 8


async def _running(view: View) -> Result:
    findings: list[Finding] = []
    injected = [pod for pod in await view.pods() if _proxy(pod)]
    for pod in injected:
        finding = _proxy_fault(pod)
        if finding:
            findings.append(finding)
    return of_findings(findings, f"{len(injected)} proxies", "pods have a proxy that does not run")


def _proxy(pod: Pod) -> Container | None:
    found = (each for each in pod.spec.init_containers or () if each.name == names.PROXY_CONTAINER)
    return next(found, None)


def _proxy_fault(pod: Pod) -> Finding | None:
    name = f"pod {pod.metadata.namespace}/{pod.metadata.name}"
    logs = f"kubectl -n {pod.metadata.namespace} logs {pod.metadata.name} -c {names.PROXY_CONTAINER}"
    statuses = [s for s in pod.status.init_container_statuses or () if s.name in _OURS]
    for status in statuses:
        waiting = status.state.waiting if status.state else None
        if waiting and waiting.reason in _PULL_REASONS:
            image = next((c.image for c in pod.spec.init_containers or () if c.name == status.name), "")
            hint = "correct image.proxy of the installation, or let the nodes pull it; then restart the pod"
            return Finding(Verdict.FAIL, name, f"image {image} cannot be pulled ({waiting.reason})", hint)
        if waiting and waiting.reason not in (None, "PodInitializing", "ContainerCreating"):
            return Finding(Verdict.FAIL, name, f"{status.name}: {waiting.reason}", logs)
    proxy = next((s for s in statuses if s.name == names.PROXY_CONTAINER), None)
    if proxy is None or pod.status.phase == "Pending":
        return None
    if proxy.state is None or proxy.state.running is None:
        return Finding(Verdict.FAIL, name, "its proxy is not running", logs)
    return None


async def _identities(view: View) -> Result:
    """Every identity in use is judged as the CA judges it, so that what it would repair is seen until it has."""
    users: dict[tuple[str, str], list[Pod]] = defaultdict(list)
    for pod in await view.pods():
        if _proxy(pod):
            users[pod.metadata.namespace, pod.spec.service_account].append(pod)
    bundle, config = await view.bundle(), await view.config()
    gate = asyncio.Semaphore(_CONCURRENCY)

    async def look(use: _Use) -> Finding | None:
        async with gate:
            path = f"/api/v1/namespaces/{use.namespace}/secrets/{names.identity_secret_name(use.account)}"
            secret = await view.find(path, OwnSecret)
        return _identity_fault(view, config, bundle, secret, use)

    found = await asyncio.gather(*(look(_Use(*key, tuple(pods))) for key, pods in sorted(users.items())))
    good = f"{len(users)} identities"
    return of_findings([each for each in found if each], good, "identities are not as they should be")


@dataclass(frozen=True, slots=True)
class _Use:
    """A ServiceAccount and the injected pods that run as it."""

    namespace: str
    account: str
    pods: tuple[Pod, ...]


def _identity_fault(
    view: View, config: MeshConfig, bundle: TrustBundle, secret: OwnSecret | None, use: _Use
) -> Finding | None:
    subject = f"service account {use.namespace}/{use.account}"
    hint = f"{view.kubectl} logs deployment/{names.CA}"
    affected = f"{len(use.pods)} pod(s) in plaintext"
    if secret is None:
        recent = all(_age(pod.metadata.creation_timestamp, view.now) < _ARRIVAL for pod in use.pods)
        return Finding(Verdict.WARN if recent else Verdict.FAIL, subject, f"it has no identity yet: {affected}", hint)
    if not is_ours(secret, Owner(view.control_plane), bundle):
        name = secret.metadata.name
        delete = f"remove or rename it: kubectl -n {use.namespace} delete secret {name}"
        return Finding(Verdict.FAIL, subject, f"Secret {name} was not made by autotls: {affected}", delete)
    identity = TrustDomain.parse(config.trust_domain).workload(use.namespace, use.account)
    verdict = judge(secret.decoded(), identity, bundle, Lifetimes.of(config.identity), view.now)
    if isinstance(verdict, Issue):
        # The CA acts within seconds; of these two, nothing is broken before.
        level = Verdict.WARN if verdict.reason in (Reason.EXPIRING, Reason.BUNDLE_STALE) else Verdict.FAIL
        return Finding(level, subject, f"{verdict.reason}: {verdict.message}", hint)
    late = sum(1 for pod in use.pods if _started_before(pod, secret))
    if late and _age(secret.metadata.creation_timestamp, view.now) < _ARRIVAL:
        message = f"its identity came after {late} pod(s) had started"
        return Finding(Verdict.WARN, subject, message, "the kubelet brings it within 90 s; nothing is to be done")
    return None


def _age(stamp: str | None, now: datetime) -> timedelta:
    return now - datetime.fromisoformat(stamp) if stamp else timedelta.max


def _started_before(pod: Pod, secret: OwnSecret) -> bool:
    created, made = pod.metadata.creation_timestamp, secret.metadata.creation_timestamp
    return bool(created and made) and datetime.fromisoformat(created or "") < datetime.fromisoformat(made or "")


async def _redirected(view: View) -> Result:
    findings: list[Finding] = []
    for pod in await view.pods():
        ours = {each.name for each in pod.spec.init_containers or ()} & _OURS
        if ours == {names.PROXY_CONTAINER}:
            message = "no_redirect: it accepts mutual TLS, its own outbound traffic stays plaintext"
            findings.append(Finding(Verdict.OK, f"pod {pod.metadata.namespace}/{pod.metadata.name}", message))
    return of_findings(findings, f"{len(findings)} are not: PodSecurity refuses it there" if findings else "", "")


async def _up_to_date(view: View) -> Result:
    findings: dict[str, Finding] = {}
    for pod in await view.pods():
        version = pod.metadata.annotation(names.VERSION_ANNOTATION)
        if _proxy(pod) and version != VERSION:
            owner = owner_of(pod)
            message = f"its sidecar is of version {version or 'unknown'}, this command of {VERSION}"
            findings[owner.text] = Finding(Verdict.WARN, owner.text, message, owner.restart)
    return of_findings(list(findings.values()), VERSION, "workloads have a sidecar of another version")


SECTION: Final = Section(
    "sidecars",
    (
        Check("proxies-running", "every proxy runs", _running),
        Check("identities", "every identity in use is there and good", _identities),
        Check("redirect", "outbound traffic is redirected to the proxies", _redirected),
        Check("sidecar-version", "every sidecar is of this version", _up_to_date),
    ),
)
