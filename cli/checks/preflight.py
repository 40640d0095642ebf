"""`check --pre`: whether autotls can be installed here."""

import asyncio
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from cli.checks.model import Check, Finding, Result, Section, Verdict, fail, of_findings, ok, skip, warn
from cli.checks.view import View
from kube.errors import NotFoundError
from kube.kinds import Bare
from mesh import names
from mesh.kubelet import OLDEST_WITH_NATIVE_SIDECARS, KubeletVersion, KubeletVersionError
from mesh.pod import Namespace, ObjectMeta, Wire
from webhook.decision import PSS_ENFORCE_LABEL

# A leaf is backdated by 10 minutes; a clock that is off by half of that leaves no certificate unusable.
SKEW_WARNING: Final = timedelta(minutes=5)
_ADMISSION: Final = "admissionregistration.k8s.io"
_RBAC: Final = "rbac.authorization.k8s.io"
# What `autotls install | kubectl apply -f -` creates: (API group, resource, in the control plane's namespace).
_CREATED: Final = (
    ("", "namespaces", False),
    (_RBAC, "clusterroles", False),
    (_RBAC, "clusterrolebindings", False),
    (_ADMISSION, "mutatingwebhookconfigurations", False),
    (_ADMISSION, "validatingadmissionpolicies", False),
    (_ADMISSION, "validatingadmissionpolicybindings", False),
    ("", "serviceaccounts", True),
    ("", "services", True),
    ("", "configmaps", True),
    ("apps", "deployments", True),
    ("policy", "poddisruptionbudgets", True),
    (_RBAC, "roles", True),
    (_RBAC, "rolebindings", True),
)
_NAME_LABEL: Final = "app.kubernetes.io/name"


class _Version(Wire, frozen=True):
    git_version: str = ""


class _ReviewStatus(Wire, frozen=True):
    allowed: bool = False


class _Review(Wire, frozen=True):
    status: _ReviewStatus = _ReviewStatus()


async def _api_reachable(view: View) -> Result:
    return ok((await _version(view)).git_version)


async def _api_version(view: View) -> Result:
    text = (await _version(view)).git_version
    try:
        version = KubeletVersion.parse(text)
    except KubeletVersionError as error:
        return warn(error.message, f"autotls needs Kubernetes {OLDEST_WITH_NATIVE_SIDECARS} or newer")
    if version < OLDEST_WITH_NATIVE_SIDECARS:
        return fail(f"it is {version}", f"upgrade to {OLDEST_WITH_NATIVE_SIDECARS} or newer: native sidecars need it")
    return ok(str(version))


async def _version(view: View) -> _Version:
    return msgspec.json.decode(await view.api.request("GET", "/version", timeout_s=5.0), type=_Version)


async def _kubelets(view: View) -> Result:
    findings: list[Finding] = []
    for node in await view.nodes():
        name, text = f"node {node.metadata.name}", node.status.node_info.kubelet_version
        if node.status.node_info.operating_system == "windows":
            continue  # no sidecar runs there, so the webhook does not count it either
        try:
            old = KubeletVersion.parse(text) < OLDEST_WITH_NATIVE_SIDECARS
        except KubeletVersionError as error:
            hint = "it is not counted; keep pods with a sidecar off it unless it knows native sidecars"
            findings.append(Finding(Verdict.WARN, name, error.message, hint))
            continue
        if old:
            hint = f"upgrade it to {OLDEST_WITH_NATIVE_SIDECARS} or newer; until then no pod at all is injected"
            findings.append(Finding(Verdict.FAIL, name, f"its kubelet is {text}", hint))
    return of_findings(findings, f"{len(await view.nodes())} nodes", "nodes have an older or unreadable one")


async def _may_install(view: View) -> Result:
    async def allowed(group: str, resource: str, namespaced: bool) -> Finding | None:
        attributes: dict[str, str] = {"verb": "create", "group": group, "resource": resource}
        if namespaced:
            attributes["namespace"] = view.control_plane
        body: dict[str, Any] = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        review = await view.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body, _Review)
        if review.status.allowed:
            return None
        name = f"{resource}.{group}" if group else resource
        return Finding(Verdict.FAIL, name, "you may not create them", "install as a cluster administrator")

    found = await asyncio.gather(*(allowed(*each) for each in _CREATED))
    return of_findings([each for each in found if each], f"{len(_CREATED)} kinds of object", "kinds are not allowed")


async def _nothing_in_the_way(view: View) -> Result:
    registration = await view.registration()
    if registration is not None:
        where = registration.control_plane_namespace
        if where == view.control_plane:
            return warn(f"autotls is installed in namespace {where}", "installing again upgrades it")
        if where:
            return fail(f"autotls is installed in namespace {where}", "`autotls uninstall` it first, or install there")
        hint = "remove or rename it"
        return fail(f"a foreign MutatingWebhookConfiguration is named {names.REGISTRATION}", hint)
    findings: list[Finding] = []
    for path, what in _our_names(view.control_plane):
        found = await view.find(path, Bare)
        if found and found.metadata.label(_NAME_LABEL) != names.MANAGED_BY and not _made_by_ca(found.metadata):
            hint = "remove or rename it: it would be overwritten, or left alone and in the way"
            findings.append(Finding(Verdict.FAIL, what, "it was not made by autotls", hint))
    return of_findings(findings, "", "foreign objects have names of ours")


def _made_by_ca(metadata: ObjectMeta) -> bool:
    return metadata.label(names.MANAGED_BY_LABEL) == names.MANAGED_BY


def _our_names(namespace: str) -> list[tuple[str, str]]:
    inside = f"/api/v1/namespaces/{namespace}"
    roles = (names.CA, names.WEBHOOK, names.DISCOVERY)
    names_ = [(f"/apis/{_RBAC}/v1/clusterroles/{name}", f"ClusterRole {name}") for name in roles]
    names_ += [
        (f"{inside}/secrets/{name}", f"Secret {namespace}/{name}")
        for name in (names.ROOT_SECRET, names.ISSUER_SECRET, *names.SERVING_SECRETS)
    ]
    return [*names_, (f"{inside}/configmaps/{names.CONFIG_MAP}", f"ConfigMap {namespace}/{names.CONFIG_MAP}")]


async def _namespace(view: View) -> Result:
    found = await view.find(f"/api/v1/namespaces/{view.control_plane}", Namespace)
    if found is None:
        return ok("it will be created")
    if found.metadata.deletion_timestamp:
        return fail("it is being deleted", "wait until it is gone")
    level = found.metadata.label(PSS_ENFORCE_LABEL)
    if view.control_plane in names.SYSTEM_NAMESPACES:
        return warn("it is a system namespace", "install into a namespace of its own")
    return ok("it exists" + (f" and enforces PodSecurity {level}, which our pods meet" if level else ""))


class _Stamped(Wire, frozen=True):
    metadata: ObjectMeta = ObjectMeta()


async def _clock(view: View) -> Result:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "autotls-check-"}}
    try:
        # The object is never stored; the API server stamps it with its own time, in whole seconds.
        answer = await view.post("/api/v1/namespaces/default/configmaps", body, _Stamped, dry_run=True)
    except NotFoundError:
        return skip("there is no namespace default to ask in")
    stamp = answer.metadata.creation_timestamp
    if not stamp:
        return skip("the API server told no time")
    difference = abs(datetime.fromisoformat(stamp) - view.now)
    if difference > SKEW_WARNING:
        return warn(
            f"they differ by {difference.total_seconds():.0f} s",
            "run NTP on both: certificates are judged by the clock",
        )
    return ok(f"within {max(1, round(difference.total_seconds()))} s")


SECTION: Final = Section(
    "before installing",
    (
        Check("api-reachable", "the API server answers", _api_reachable, fatal=True),
        Check("api-version", f"the API server is {OLDEST_WITH_NATIVE_SIDECARS} or newer", _api_version),
        Check("kubelets", f"every kubelet is {OLDEST_WITH_NATIVE_SIDECARS} or newer", _kubelets),
        Check("permissions", "you may create what autotls consists of", _may_install),
        Check("nothing-in-the-way", "no other installation or object is in the way", _nothing_in_the_way),
        Check("namespace", "the namespace takes the control plane", _namespace),
        Check("clock", "this machine's clock and the API server's agree", _clock),
    ),
)
REACHABLE: Final = SECTION.checks[0]
