"""The steps of a proof, judged. Pure: facts and evidence in, one verdict and one sentence for each step out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from cli.checks.model import Verdict
from cli.checks.workload import is_injected, runs
from cli.proof.attempt import Evidence
from cli.proof.envoy import Host, Leaf
from cli.proof.facts import Facts
from discovery.protocols import PortSet
from discovery.scope import REACH_ANNOTATION
from discovery.snapshot import Endpoint
from mesh import names
from mesh.pod import ContainerState, Pod
from mesh.reasons import Plaintext
from telemetry.reasons import Attempts, refine

# What autotls-init leaves as its termination message.
_REDIRECT_WRITTEN: Final = "redirect_written"
_NO_FLAGS: Final = "-"


class StepId(StrEnum):
    """The steps in their order; documented in docs/cli.md."""

    POD = "pod"
    PROXY = "proxy"
    REDIRECT = "redirect"
    CONFIGURATION = "configuration"
    CLIENT_IDENTITY = "client-identity"
    CONNECTION = "connection"
    SERVER_IDENTITY = "server-identity"
    TLS = "tls"


@dataclass(frozen=True, slots=True)
class Step:
    """One step: how it came out, what was seen, and what to do about it."""

    id: StepId
    verdict: Verdict
    message: str
    hint: str = ""


def _ok(step: StepId, message: str) -> Step:
    return Step(step, Verdict.OK, message)


def pod_step(pod: Pod, control_plane: str) -> Step:
    """Whether the pod has a sidecar of this installation, and it runs."""
    where = f"kubectl -n {pod.metadata.namespace}"
    if not is_injected(pod):
        hint = f"autotls check -n {pod.metadata.namespace} says why; everything that it dials is plaintext"
        return Step(StepId.POD, Verdict.FAIL, f"it has no sidecar ({Plaintext.NOT_MESHED})", hint)
    if pod.metadata.label(names.MESH_LABEL) != control_plane:
        told = pod.metadata.label(names.MESH_LABEL) or "none"
        return Step(StepId.POD, Verdict.FAIL, f"it belongs to another mesh ({told})", f"this one is {control_plane}")
    if not runs(pod):
        hint = f"{where} logs {pod.metadata.name} -c {names.PROXY_CONTAINER}"
        return Step(StepId.POD, Verdict.FAIL, "its sidecar does not run", hint)
    version = pod.metadata.annotation(names.VERSION_ANNOTATION) or "unknown"
    return _ok(StepId.POD, f"its sidecar runs (version {version})")


def proxy_step(numbers: Mapping[str, int]) -> Step:
    """Whether the proxy has started, and is connected to discovery."""
    if not numbers.get("server.live"):
        return Step(StepId.PROXY, Verdict.FAIL, "the proxy is still starting, or draining", "try again in a moment")
    if not numbers.get("control_plane.connected_state"):
        message = (
            f"it runs for {numbers.get('server.uptime', 0)} s, without discovery ({Plaintext.DISCOVERY_UNAVAILABLE})"
        )
        return Step(StepId.PROXY, Verdict.WARN, message, "autotls check says whether discovery is up")
    return _ok(StepId.PROXY, f"it runs for {numbers.get('server.uptime', 0)} s, connected to discovery")


def redirect_step(facts: Facts) -> Step:
    """Whether the application's own connections come to the proxy; the one that is tried here is brought to it."""
    past = "the application's own connections go past the proxy"
    state = _state_of(facts.pod, names.INIT_CONTAINER)
    if state is None:
        hint = "PodSecurity of its namespace refuses the redirect container: docs/webhook.md"
        return Step(StepId.REDIRECT, Verdict.WARN, f"{past} ({Plaintext.NO_REDIRECT})", hint)
    said = (state.terminated.message or "").strip() if state.terminated else ""
    if _REDIRECT_WRITTEN not in said:
        hint = f"kubectl -n {facts.client.namespace} logs {facts.pod.metadata.name} -c {names.INIT_CONTAINER}"
        return Step(StepId.REDIRECT, Verdict.WARN, f"{past}: {said or 'the redirect container left no word'}", hint)
    if facts.plan.port in PortSet.parse(said.partition("skip_outbound='")[2].partition("'")[0]):
        hint = f"annotation {names.SETTING_PREFIX}skip-outbound-ports of the pod or its namespace"
        return Step(StepId.REDIRECT, Verdict.WARN, f"{past}: port {facts.plan.port} is skipped", hint)
    return _ok(StepId.REDIRECT, "the application's own connections come to the proxy")


def configuration_step(facts: Facts, hosts: Iterable[Host], *, listener: bool) -> Step:
    """Whether the proxy holds what discovery has for it."""
    step, plan = StepId.CONFIGURATION, facts.plan
    if facts.unsupported:
        message = f"the Service is left to kube-proxy: {facts.unsupported} ({Plaintext.UNSUPPORTED_SERVICE})"
        return Step(step, Verdict.WARN, message, "docs/checks.md, unsupported-services")
    if not facts.within_reach:
        message = f"the pod's reach leaves it out ({Plaintext.OUT_OF_REACH})"
        return Step(step, Verdict.WARN, message, f"annotation {REACH_ANNOTATION} of the pod or its namespace")
    if not facts.meshed:
        message = f"none of its {len(plan.endpoints)} endpoint(s) is meshed"
        reasons = sorted({each.reason.value for each in plan.endpoints if each.reason}) or [Plaintext.NOT_MESHED.value]
        return Step(step, Verdict.WARN, f"{message} ({', '.join(reasons)})", "autotls check says which pods and why")
    if not listener:
        message = f"the proxy has no listener for {plan.address}:{plan.port} ({Plaintext.DISCOVERY_UNAVAILABLE})"
        return Step(step, Verdict.FAIL, message, "it comes within a second of the proxy's connection to discovery")
    held = {each.address for each in hosts if each.priority == 0}
    wanted = {_dialled(each) for each in plan.endpoints}
    if held != wanted:
        message = f"the proxy holds {_listed(held)}; by now it should be {_listed(wanted)}"
        return Step(step, Verdict.WARN, message, "normal while pods come and go: try again")
    told = f"{plan.address}:{plan.port} has {len(facts.meshed)} endpoint(s) by mutual TLS"
    plain = len(plan.endpoints) - len(facts.meshed)
    return _ok(step, told + (f", {plain} in plaintext" if plain else ""))


def client_identity_step(leaf: Leaf | None, facts: Facts, now: datetime) -> Step:
    """Which certificate the proxy shows to others."""
    step = StepId.CLIENT_IDENTITY
    hint = f"autotls identity {facts.pod.metadata.name} -n {facts.client.namespace}"
    if leaf is None:
        return Step(step, Verdict.FAIL, f"the proxy has no certificate ({Plaintext.NO_IDENTITY_CLIENT})", hint)
    if leaf.uris != (facts.client.identity,):
        message = f"it shows {_listed(leaf.uris)}, the pod is {facts.client.identity}"
        return Step(step, Verdict.FAIL, message, hint)
    if leaf.not_after <= now:
        return Step(step, Verdict.FAIL, f"its certificate expired at {leaf.not_after:%Y-%m-%d %H:%M} UTC", hint)
    return _ok(step, f"{leaf.uris[0]}, until {leaf.not_after:%Y-%m-%d %H:%M} UTC")


def connection_step(facts: Facts, evidence: Evidence | None) -> Step:
    """What became of the connection."""
    step, plan = StepId.CONNECTION, facts.plan
    if evidence is None:
        message = f"port {plan.port} is declared as HTTP: without a request nothing reaches a server"
        return Step(step, Verdict.SKIP, message, "--request sends `HEAD /`, which the application sees")
    told = f"{facts.source} to {plan.address}:{plan.port}"
    if not evidence.taken:
        flags = _listed({each.code for each in evidence.counted if each.code != _NO_FLAGS})
        message = f"{told}: no endpoint could be connected to (Envoy's words: {flags})"
        return Step(step, Verdict.FAIL, message, "see whether a server listens, and what NetworkPolicies allow")
    told += f", given to {_listed(evidence.taken)}"
    if evidence.reply.startswith("HTTP/"):
        return _ok(step, f"{told}: {evidence.reply}")
    if evidence.ended:
        hint = f"see whether a server listens on port {plan.port}'s target"
        return Step(step, Verdict.WARN, f"{told}: the other side closed it at once", hint)
    return _ok(step, f"{told}: established, and closed again")


def server_identity_step(facts: Facts, evidence: Evidence) -> Step:
    """Who the other side proved to be."""
    step = StepId.SERVER_IDENTITY
    peers = {each.peer for each in evidence.counted if each.tls}
    if not peers:
        return Step(step, Verdict.SKIP, "none was shown")
    others = peers - facts.plan.identities
    if others:
        message = f"{_listed(others)}, which no pod behind the Service has by now"
        return Step(step, Verdict.WARN, message, "normal while pods come and go: try again")
    return _ok(step, _listed(peers))


def tls_step(facts: Facts, evidence: Evidence, configuration: Step) -> Step:
    """Whether it was mutual TLS: the one step that decides.

    Everything that was counted while ours was open is looked at; ours is in it, so it is what all of it was.
    """
    step = StepId.TLS
    versions = {each.tls for each in evidence.counted}
    if not evidence.counted:
        return Step(step, Verdict.FAIL, "the proxy counted no connection", "try again; autotls check")
    if all(versions):
        return _ok(step, f"mutual TLS, {_listed(versions)}")
    if any(versions):
        total = sum(evidence.counted.values())
        message = f"{total} connections were counted at once, and not all were mutual TLS: which was ours is unknown"
        return Step(step, Verdict.WARN, message, "autotls stat shows their shares; try again")
    if not evidence.taken:
        return Step(step, Verdict.FAIL, "there was no connection", "see the steps above")
    return _plaintext(facts, evidence, configuration)


def _plaintext(facts: Facts, evidence: Evidence, configuration: Step) -> Step:
    step = StepId.TLS
    reasons = {each.reason for each in evidence.counted} - {""}
    if Plaintext.TLS_FAILED in reasons:
        reason, why, hint = _why_tls_failed(evidence, f"autotls identity POD -n {facts.service.metadata.namespace}")
        return Step(step, Verdict.FAIL, f"plaintext ({reason}): {why}", hint)
    if reasons:
        return Step(step, Verdict.FAIL, f"plaintext ({_listed(reasons)})", configuration.hint or "autotls check")
    return Step(step, Verdict.FAIL, "plaintext: " + configuration.message, configuration.hint)


def _why_tls_failed(evidence: Evidence, identity: str) -> tuple[Plaintext, str, str]:
    """The cause, by what the proxy counted while this connection was tried (telemetry.reasons)."""
    counted = {name: count for name, count in evidence.failures.items() if count > 0}
    handshake = sorted(name for name in counted if name.startswith("ssl.") and name != "ssl.handshake")
    cause = refine(
        Attempts(
            failed=counted.get("upstream_cx_connect_fail", 0),
            no_identity=sum(count for name, count in counted.items() if "secrets_not_ready" in name),
            timed_out=counted.get("upstream_cx_connect_timeout", 0),
            handshake=sum(counted[name] for name in handshake),
        )
    )
    if cause is Plaintext.NO_IDENTITY_CLIENT:
        return cause, "the proxy has no certificate yet", identity
    if cause is Plaintext.HANDSHAKE_FAILED:
        return cause, f"the handshake failed ({', '.join(handshake)})", f"{identity}, of the server's pods"
    if cause is Plaintext.UNREACHABLE:
        why = f"port {names.INBOUND_TLS_PORT} of the peer could not be connected to"
        hint = "its proxy is down or has no certificate, or a NetworkPolicy forbids the port: autotls check"
        return cause, why, hint
    ejected = [host.address for host in evidence.hosts if host.ejected]
    why = f"{_listed(ejected)} could not be reached by TLS before, and is tried again within a minute"
    return cause, why, "try again in a minute for the reason"


def _dialled(endpoint: Endpoint) -> str:
    """An endpoint's address as Envoy writes it."""
    port = names.INBOUND_TLS_PORT if endpoint.identity else endpoint.port
    return f"[{endpoint.address}]:{port}" if ":" in endpoint.address else f"{endpoint.address}:{port}"


def _listed(values: Iterable[str]) -> str:
    return ", ".join(sorted(values)) or "nothing"


def _state_of(pod: Pod, container: str) -> ContainerState | None:
    found = (each for each in pod.status.init_container_statuses or () if each.name == container)
    status = next(found, None)
    return status.state if status else None
