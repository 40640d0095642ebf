"""What is known to get in the way of mutual TLS, or changes what an application sees: found before anybody wonders."""

from collections import defaultdict
from typing import Final

from cli.checks.model import Check, Finding, Result, Section, Verdict, of_findings
from cli.checks.policies import NetworkPolicy, isolation
from cli.checks.view import SeenService, View
from cli.checks.workload import Owner, is_injected, owner_of
from discovery.kinds import Service
from discovery.unsupported import Unsupported, unsupported
from kube.kinds import collection_path
from kube.read import list_all
from mesh import names
from mesh.pod import Namespace, ObjectMeta, Pod
from mesh.settings import settings_for
from webhook.decision import Skip, SkipReason, decide

CLASHES: Final = frozenset({SkipReason.PORT_CLASH, SkipReason.UID_CLASH, SkipReason.NAME_CLASH})
_CLASH_HINTS: Final = {
    SkipReason.PORT_CLASH: "let the container listen elsewhere: 15100-15199 are the proxy's",
    SkipReason.UID_CLASH: f"let the container run as another uid: {names.PROXY_UID} is the proxy's",
    SkipReason.NAME_CLASH: "give the container or volume another name",
}
_UNSUPPORTED_HINTS: Final = {
    Unsupported.SESSION_AFFINITY: "remove sessionAffinity, or dial pods by a headless Service",
    Unsupported.INTERNAL_TRAFFIC_POLICY_LOCAL: "set internalTrafficPolicy: Cluster",
    Unsupported.TRAFFIC_DISTRIBUTION: "remove trafficDistribution and the annotation topology-mode",
}


async def _injected(view: View) -> list[Pod]:
    return [pod for pod in await view.pods() if is_injected(pod)]


async def _policies(view: View) -> Result:
    """A peer that may reach the application's port and not 15108 waits for a second and goes on in plaintext."""
    path = collection_path("networking.k8s.io/v1", "networkpolicies", view.only)
    policies = await list_all(view.api, path, NetworkPolicy)
    wanted = (
        (
            "Ingress",
            names.INBOUND_TLS_PORT,
            "may not be reached on {port}: peers fall back to plaintext after a second",
        ),
        ("Egress", names.INBOUND_TLS_PORT, "may not dial {port}: what it dials stays plaintext"),
        ("Egress", names.XDS_PORT, "may not dial discovery on {port}: it gets no configuration, all stays plaintext"),
    )
    blamed: dict[tuple[tuple[str, ...], str, int, str], dict[Owner, int]] = defaultdict(lambda: defaultdict(int))
    for pod in await _injected(view):
        for direction, port, message in wanted:
            found = isolation(pod, policies, direction)
            if found.forgets(port):
                subjects = tuple(f"{pod.metadata.namespace}/{name}" for name in found.policies)
                blamed[subjects, direction, port, message][owner_of(pod)] += 1
    findings = [
        Finding(
            Verdict.WARN,
            f"networkpolicy {', '.join(subjects)}",
            f"{', '.join(sorted(owner.text for owner in owners))} {message.format(port=port)}",
            f"allow TCP {port} in {direction.lower()}, beside what it allows now",
        )
        for (subjects, direction, port, message), owners in sorted(blamed.items())
    ]
    return of_findings(findings, f"{len(policies)} policies", "of what NetworkPolicies forbid breaks mutual TLS")


async def _unsupported(view: View) -> Result:
    findings: list[Finding] = []
    for service, pods in await _meshed_services(view):
        reason = unsupported(Service(service.metadata, service.spec))
        if reason:
            message = f"{reason}: kube-proxy balances it, in plaintext ({len(pods)} meshed pod(s))"
            findings.append(Finding(Verdict.WARN, _name(service), message, _UNSUPPORTED_HINTS[reason]))
    return of_findings(findings, "", "Services are left to kube-proxy")


async def _source_addresses(view: View) -> Result:
    """`externalTrafficPolicy: Local` is set to see the client's address; an observed pod sees its own proxy's."""
    namespaces, config = await view.namespaces(), await view.config()
    findings: list[Finding] = []
    for service, pods in await _meshed_services(view):
        if service.spec.external_traffic_policy != "Local":
            continue
        observed = 0
        for pod in pods:
            namespace = namespaces.get(pod.metadata.namespace) or Namespace(ObjectMeta())
            settings, _ = settings_for(pod.metadata, namespace.metadata, config)
            observed += settings.inbound == "observed"
        if observed:
            message = (
                f"externalTrafficPolicy Local, and {observed} pod(s) are observed: the application sees the pod's own "
                "address instead of the client's"
            )
            hint = f"annotate {names.SETTING_PREFIX}inbound=direct, or do without the client's address"
            findings.append(Finding(Verdict.WARN, _name(service), message, hint))
    return of_findings(findings, "", "Services lose the client's address")


async def _clashes(view: View) -> Result:
    namespaces, config, oldest = await view.namespaces(), await view.config(), await view.oldest_kubelet()
    found: dict[str, Finding] = {}
    for pod in await view.pods():
        namespace = namespaces.get(pod.metadata.namespace) or Namespace(ObjectMeta(name=pod.metadata.namespace))
        decision = decide(pod, namespace, config, oldest_kubelet=oldest)
        if isinstance(decision, Skip) and decision.reason in CLASHES:
            owner = owner_of(pod)
            message = f"left alone: {decision.reason}, {decision.message}"
            found[owner.text] = Finding(Verdict.WARN, owner.text, message, _CLASH_HINTS[decision.reason])
    for service, pods in await _meshed_services(view):
        taken = [p.target_port for p in service.spec.ports or () if p.target_port in names.RESERVED_PORTS]
        if taken:
            message = f"it sends to port {taken[0]} of {len(pods)} meshed pod(s), which is the proxy's"
            found[_name(service)] = Finding(Verdict.WARN, _name(service), message, "name a port of the application")
    return of_findings(list(found.values()), "", "workloads or Services use what is the proxy's")


async def _settings(view: View) -> Result:
    """What the webhook said at admission, to whoever may not have listened."""
    namespaces, config = await view.namespaces(), await view.config()
    found: dict[tuple[str, str], Finding] = {}
    for pod in await view.pods():
        namespace = namespaces.get(pod.metadata.namespace) or Namespace(ObjectMeta(name=pod.metadata.namespace))
        if not is_injected(pod):
            continue
        for error in settings_for(pod.metadata, namespace.metadata, config)[1]:
            in_namespace = namespace.metadata.annotation(error.setting) == error.value
            subject = f"namespace {namespace.metadata.name}" if in_namespace else owner_of(pod).text
            hint = "correct the annotation, then restart the pods; until then the default holds"
            found[subject, error.message] = Finding(Verdict.WARN, subject, error.message, hint)
    return of_findings(list(found.values()), "", "settings are not what is allowed")


async def _meshed_services(view: View) -> list[tuple[SeenService, list[Pod]]]:
    """Services with the injected pods behind them, where there are any."""
    by_namespace: dict[str, list[Pod]] = defaultdict(list)
    for pod in await _injected(view):
        by_namespace[pod.metadata.namespace].append(pod)
    found: list[tuple[SeenService, list[Pod]]] = []
    for service in await view.services():
        pods = [pod for pod in by_namespace.get(service.metadata.namespace, ()) if service.selects(pod)]
        if pods:
            found.append((service, pods))
    return found


def _name(service: SeenService) -> str:
    return f"service {service.metadata.namespace}/{service.metadata.name}"


SECTION: Final = Section(
    "conflicts",
    (
        Check("settings", "every setting has a value that is allowed", _settings),
        Check("clashes", "no workload uses a port, uid or name of the proxy's", _clashes),
        Check("network-policies", "NetworkPolicies allow what mutual TLS needs", _policies),
        Check("unsupported-services", "no Service of meshed pods is left to kube-proxy", _unsupported),
        Check("source-addresses", "no Service needs a client's address that the proxy hides", _source_addresses),
    ),
)
