"""Whether the control plane is up, and whether the API server reaches its webhook."""

from datetime import datetime, timedelta
from typing import Any, Final

from cli.checks.model import Check, Finding, Result, Section, Verdict, fail, of_findings, ok, skip, warn
from cli.checks.preflight import REACHABLE
from cli.checks.view import View
from kube.errors import ApiError, ForbiddenError, NotFoundError
from kube.kinds import Lease, ServiceAccount
from mesh import names
from mesh.config import parse_duration
from mesh.pod import Pod
from mesh.version import VERSION

_VERSION_LABEL: Final = "app.kubernetes.io/version"
_SPEC: Final[dict[str, Any]] = {
    "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "probe",
            "image": "autotls.invalid/never-pulled",
            "resources": {
                "requests": {"cpu": "1m", "memory": "1Mi"},
                "limits": {"cpu": "1m", "memory": "1Mi"},
            },
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
    ],
}


async def _installed(view: View) -> Result:
    registration = await view.registration()
    if registration is None:
        return fail("there is no MutatingWebhookConfiguration autotls", "autotls install | kubectl apply -f -")
    if registration.control_plane_namespace is None:
        return fail("MutatingWebhookConfiguration autotls calls another Service", "it is not ours: remove or rename it")
    await view.config()
    return ok(f"in namespace {view.control_plane}")


async def _webhook_up(view: View) -> Result:
    return await _available(view, names.WEBHOOK)


async def _ca_up(view: View) -> Result:
    return await _available(view, names.CA)


async def _discovery_up(view: View) -> Result:
    return await _available(view, names.DISCOVERY)


async def _dashboard_up(view: View) -> Result:
    """At worst a warning: no connection depends on it."""
    account = f"/api/v1/namespaces/{view.control_plane}/serviceaccounts/{names.DASHBOARD}"
    if await view.find(account, ServiceAccount) is None:
        return skip("it is not installed", "dashboard.enabled=true in the chart's values adds it")
    found = await _available(view, names.DASHBOARD)
    return found if found.verdict is Verdict.OK else warn(found.message, found.hint)


async def _available(view: View, name: str) -> Result:
    found = await view.deployment(name)
    if found is None:
        return fail(f"there is no Deployment {name}", "autotls install | kubectl apply -f -")
    wanted, there = found.spec.replicas, found.status.available_replicas
    told = f"{there} of {wanted} replicas are available"
    hint = f"{view.kubectl} describe pods -l app.kubernetes.io/component={name.removeprefix('autotls-')}"
    if there == 0:
        return fail(told, hint)
    if there < wanted or found.status.updated_replicas < wanted:
        return warn(told + f", {found.status.updated_replicas} are up to date", hint)
    return ok(told)


async def _version(view: View) -> Result:
    findings: list[Finding] = []
    for name in (names.WEBHOOK, names.CA, names.DISCOVERY, names.DASHBOARD):
        found = await view.deployment(name)
        version = found.metadata.label(_VERSION_LABEL) if found else None
        if found and version != VERSION:
            message = f"it is of version {version or 'unknown'}, this command of {VERSION}"
            findings.append(
                Finding(Verdict.WARN, f"deployment {name}", message, "use the command of that version, or upgrade")
            )
    return of_findings(findings, VERSION, "Deployments are of another version")


async def _leader(view: View) -> Result:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{view.control_plane}/leases/{names.CA_LEASE}"
    lease = await view.find(path, Lease)
    hint = f"{view.kubectl} logs deployment/{names.CA}"
    if lease is None or not lease.spec.holder_identity:
        return fail("no replica of the CA leads", hint)
    duration = parse_duration((await view.config()).lease.duration)
    renewed = lease.spec.renew_time
    age = view.now - datetime.fromisoformat(renewed) if renewed else None
    # Twice the duration: this machine's clock and the leader's are not the same.
    if age is None or age > 2 * duration + timedelta(seconds=5):
        return fail(f"{lease.spec.holder_identity} has not renewed its Lease", hint)
    return ok(lease.spec.holder_identity)


async def _strict_registered(view: View) -> Result:
    if await view.registration(names.STRICT_REGISTRATION) is None:
        return fail(
            "there is no MutatingWebhookConfiguration autotls-strict", f"{view.kubectl} logs deployment/{names.CA}"
        )
    return ok()


async def _webhook_called(view: View) -> Result:
    namespace = await _probe_namespace(view)
    if namespace is None:
        return skip("there is no namespace to try a pod in", "it needs one that is neither a system's nor ours")
    pod = await _dry_run(view, namespace, "optional")
    if _has_sidecar(pod):
        return ok(f"a pod that was tried in namespace {namespace} got its sidecar")
    hint = f"{view.kubectl} get pods,endpoints; a NetworkPolicy or firewall may keep the API server from port 8443"
    if await view.registration(names.STRICT_REGISTRATION) is not None:
        # The optional registration hides why a call failed; the strict one tells.
        try:
            await _dry_run(view, namespace, "strict")
        except ApiError as error:
            return fail(error.message, hint)
    return fail(f"a pod that was tried in namespace {namespace} got no sidecar", hint)


async def _probe_namespace(view: View) -> str | None:
    """A namespace in which a pod can be tried: opted in if there is one, else `default`, else any."""
    excluded = {*names.SYSTEM_NAMESPACES, view.control_plane, *(await view.config()).excluded_namespaces}
    try:
        namespaces = await view.namespaces()
    except ForbiddenError:
        return view.only or "default"
    usable = [each for name, each in sorted(namespaces.items()) if name not in excluded]
    usable = [each for each in usable if not each.metadata.deletion_timestamp]
    if view.only:
        usable = [each for each in usable if each.metadata.name == view.only]
    opted_in = [each for each in usable if each.metadata.label(names.INJECT_LABEL) == names.INJECT_ENABLED]
    default = [each for each in usable if each.metadata.name == "default"]
    return next((each.metadata.name for each in (*opted_in, *default, *usable)), None)


async def _dry_run(view: View, namespace: str, mode: str) -> Pod:
    labels = {names.INJECT_LABEL: names.INJECT_ENABLED, names.MODE_LABEL: mode}
    metadata = {"generateName": "autotls-check-", "labels": labels}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": _SPEC}
    try:
        return await view.post(f"/api/v1/namespaces/{namespace}/pods", body, Pod, dry_run=True)
    except NotFoundError as error:
        raise ForbiddenError(403, "NotFound", f"namespace {namespace}: {error.message}") from error


def _has_sidecar(pod: Pod) -> bool:
    return any(container.name == names.PROXY_CONTAINER for container in pod.spec.init_containers or ())


SECTION: Final = Section(
    "control plane",
    (
        REACHABLE,
        Check("installed", "autotls is installed", _installed, fatal=True),
        Check("webhook-available", "the webhook is up", _webhook_up),
        Check("ca-available", "the CA is up", _ca_up),
        Check("discovery-available", "discovery is up", _discovery_up),
        Check("dashboard-available", "the dashboard is up", _dashboard_up),
        Check("control-plane-version", "the control plane is of this command's version", _version),
        Check("ca-leader", "one replica of the CA leads", _leader),
        Check("strict-registration", "strict pods are registered for", _strict_registered),
        Check("webhook-called", "the API server calls the webhook", _webhook_called),
    ),
)
