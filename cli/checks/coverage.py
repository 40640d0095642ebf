"""Which pods should be in the mesh and are not, and what would keep new ones out."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from cli.checks.conflicts import CLASHES
from cli.checks.model import Check, Finding, Result, Section, Verdict, of_findings
from cli.checks.view import View
from cli.checks.workload import Owner, owner_of
from kube.kinds import collection_path
from kube.read import list_all
from mesh import names
from mesh.config import ResourceValues
from mesh.pod import Namespace, ObjectMeta, Pod, Wire
from mesh.quantity import Quantity, QuantityError
from mesh.settings import default_settings
from webhook.decision import Deny, Inject, Skip, SkipReason, decide

# Nobody expects these in the mesh, so they are not worth a line.
_EXPECTED: Final = frozenset(
    {
        SkipReason.NOT_OPTED_IN,
        SkipReason.OPTED_OUT,
        SkipReason.ALREADY_INJECTED,
        SkipReason.SYSTEM_NAMESPACE,
        SkipReason.CONTROL_PLANE,
        SkipReason.MIRROR_POD,
        *CLASHES,  # a check of their own
    }
)
_QUOTA_KEYS: Final = {
    "requests.cpu": "cpu_request",
    "cpu": "cpu_request",
    "limits.cpu": "cpu_limit",
    "requests.memory": "memory_request",
    "memory": "memory_request",
    "limits.memory": "memory_limit",
}


async def _covered(view: View) -> Result:
    namespaces, config = await view.namespaces(), await view.config()
    oldest = await view.oldest_kubelet()
    missing: dict[Owner, list[Pod]] = defaultdict(list)
    findings: list[Finding] = []
    injected = 0
    for pod in await view.pods():
        namespace = namespaces.get(pod.metadata.namespace) or Namespace(ObjectMeta(name=pod.metadata.namespace))
        match decide(pod, namespace, config, oldest_kubelet=oldest):
            case Inject():
                missing[owner_of(pod)].append(pod)
            case Deny(message=message):
                findings.append(Finding(Verdict.FAIL, _name(pod), message, "correct the annotation, then restart it"))
            case Skip(reason=reason, message=message):
                injected += reason is SkipReason.ALREADY_INJECTED
                if reason not in _EXPECTED:
                    findings.append(Finding(Verdict.OK, _name(pod), f"left alone: {reason}, {message}"))
    since = await _registered_since(view)
    for owner, pods in missing.items():
        why = _why_missing(pods, since)
        findings.append(Finding(Verdict.FAIL, owner.text, f"{len(pods)} pod(s) without sidecar: {why}", owner.restart))
    return of_findings(findings, f"{injected} pods have their sidecar", "workloads lack their sidecar")


class _Registered(Wire, frozen=True):
    metadata: ObjectMeta = ObjectMeta()


async def _registered_since(view: View) -> datetime | None:
    path = f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{names.REGISTRATION}"
    found = await view.find(path, _Registered)
    stamp = found.metadata.creation_timestamp if found else None
    return datetime.fromisoformat(stamp) if stamp else None


def _why_missing(pods: list[Pod], since: datetime | None) -> str:
    created = [
        datetime.fromisoformat(pod.metadata.creation_timestamp) for pod in pods if pod.metadata.creation_timestamp
    ]
    if since and created and max(created) < since:
        return "created before autotls was installed"
    return "created before the opt-in, or while the webhook did not answer"


def _name(pod: Pod) -> str:
    return f"pod {pod.metadata.namespace}/{pod.metadata.name}"


class _LimitItem(Wire, frozen=True):
    type: str = ""
    max: Mapping[str, str] | None = None
    min: Mapping[str, str] | None = None
    max_limit_request_ratio: Mapping[str, str] | None = None


class _LimitSpec(Wire, frozen=True):
    limits: tuple[_LimitItem, ...] | None = None


class _LimitRange(Wire, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: _LimitSpec = _LimitSpec()


class _QuotaStatus(Wire, frozen=True):
    hard: Mapping[str, str] | None = None
    used: Mapping[str, str] | None = None


class _Quota(Wire, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    status: _QuotaStatus = _QuotaStatus()


async def _room(view: View) -> Result:
    """Only the chart's own amounts are compared: a namespace or pod may ask for others by annotation."""
    config = await view.config()
    ours = default_settings(config, config.mode).resources
    opted_in = {
        name
        for name, each in (await view.namespaces()).items()
        if each.metadata.label(names.INJECT_LABEL) == names.INJECT_ENABLED and view.only in (None, name)
    }
    findings: list[Finding] = []
    for limit in await list_all(view.api, collection_path("v1", "limitranges"), _LimitRange):
        if limit.metadata.namespace in opted_in:
            subject = f"LimitRange {limit.metadata.namespace}/{limit.metadata.name}"
            findings += [Finding(Verdict.FAIL, subject, text, _hint(ours)) for text in _limit_faults(limit, ours)]
    for quota in await list_all(view.api, collection_path("v1", "resourcequotas"), _Quota):
        if quota.metadata.namespace in opted_in:
            subject = f"ResourceQuota {quota.metadata.namespace}/{quota.metadata.name}"
            findings += [Finding(Verdict.WARN, subject, text, _hint(ours)) for text in _quota_faults(quota, ours)]
    return of_findings(findings, "", "limits would refuse a pod for its sidecar")


def _hint(ours: ResourceValues) -> str:
    return (
        f"raise it, or set {names.SETTING_PREFIX}proxy-cpu-limit and the like on the namespace (the sidecar asks for "
        f"{ours.cpu_request}/{ours.cpu_limit} CPU, {ours.memory_request}/{ours.memory_limit} memory)"
    )


def _limit_faults(limit: _LimitRange, ours: ResourceValues) -> list[str]:
    faults: list[str] = []
    for item in limit.spec.limits or ():
        if item.type not in ("Container", "Pod"):
            continue
        for resource in ("cpu", "memory"):
            request, most = getattr(ours, f"{resource}_request"), getattr(ours, f"{resource}_limit")
            if _above(most, (item.max or {}).get(resource)):
                faults.append(f"at most {(item.max or {})[resource]} {resource} for a {item.type.lower()}")
            if item.type == "Container" and _above((item.min or {}).get(resource), request):
                faults.append(f"at least {(item.min or {})[resource]} {resource} for a container")
            ratio = (item.max_limit_request_ratio or {}).get(resource)
            if item.type == "Container" and ratio and _ratio(most, request) > _ratio(ratio, "1"):
                faults.append(f"a {resource} limit of at most {ratio} times the request")
    return faults


def _quota_faults(quota: _Quota, ours: ResourceValues) -> list[str]:
    faults: list[str] = []
    for key, field in _QUOTA_KEYS.items():
        hard, used = (quota.status.hard or {}).get(key), (quota.status.used or {}).get(key, "0")
        if hard is not None and Quantity.parse(used) + Quantity.parse(getattr(ours, field)) > Quantity.parse(hard):
            faults.append(f"{key}: {used} of {hard} are used, so one more sidecar does not fit")
    return faults


def _above(amount: str | None, other: str | None) -> bool:
    try:
        return amount is not None and other is not None and Quantity.parse(amount) > Quantity.parse(other)
    except QuantityError:
        return False


def _ratio(amount: str, of: str) -> float:
    return Quantity.parse(amount).nano / max(1, Quantity.parse(of).nano)


SECTION: Final = Section(
    "coverage",
    (
        Check("pods-covered", "every pod that opted in has its sidecar", _covered),
        Check("room-for-sidecars", "no LimitRange or ResourceQuota refuses the sidecar", _room),
    ),
)
