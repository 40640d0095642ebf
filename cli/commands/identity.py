"""`autotls identity`."""

import asyncio
import base64
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import click
from cryptography import x509

from ca.profile import Lifetimes
from cli import output
from cli.checks.model import Verdict
from cli.checks.view import View
from cli.checks.workload import is_injected
from cli.commands.check import COLOURS
from cli.errors import EXIT_FAILED, EXIT_OK, CliError
from cli.installation import find_control_plane
from cli.served import Comparison, Served, State, compare, handshake, renewal_due, told
from cli.target import Target, cluster_options, context_namespace
from kube.client import HttpApi, connect
from kube.errors import ApiError, ForbiddenError
from kube.kinds import Secret
from mesh import names
from mesh.errors import AutotlsError
from mesh.pod import Pod
from mesh.spiffe import TrustDomain
from mesh.svid import parse_certificates
from mesh.workload import workload_of

# Each is a port-forward through the API server.
_CONCURRENCY: Final = 8
_SHORT: Final = {
    "po": "pod", "pods": "pod", "deploy": "deployment", "deployments": "deployment", "sts": "statefulset",
    "statefulsets": "statefulset", "ds": "daemonset", "daemonsets": "daemonset", "jobs": "job", "cj": "cronjob",
    "cronjobs": "cronjob", "rs": "replicaset", "replicasets": "replicaset",
}  # fmt: skip
_HEADER: Final = ("POD", "IDENTITY", "SERIAL", "ISSUER", "EXPIRES IN", "RENEWAL IN", "STATE")


@dataclass(frozen=True, slots=True)
class Report:
    """One pod: what it serves, what was issued, and how the two compare."""

    pod: Pod
    identity: str
    served: x509.Certificate | None
    issued: x509.Certificate | None
    comparison: Comparison
    hint: str = ""


@click.command("identity")
@click.argument("what", metavar="POD|KIND/NAME")
@click.option("-n", "--namespace", metavar="NAME", help="Namespace of the pod [the context's].")
@click.option("--control-plane", metavar="NAME", help="Namespace of the control plane [found by its registration].")
@click.option("-o", "--output", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@cluster_options
def command(what: str, namespace: str | None, control_plane: str | None, form: str, target: Target) -> int:
    """Compare the certificate that a pod's proxy serves now with the one that the CA issued.

    The one served comes from a real handshake through a port-forward, and is verified against the trust bundle; the one
    issued from its Secret, of which only the certificate is read. `deploy/web` looks at all pods of a workload.
    Exit code 0: every pod serves what was issued, or will within the kubelet's 60-90 s; 1: one does not.
    """
    where = namespace or context_namespace(target) or "default"
    reports, lifetimes, now = asyncio.run(_identity(target, what, where, control_plane))
    if form == "json":
        output.result(json.dumps([_plain(each, lifetimes) for each in reports], indent=2, ensure_ascii=False) + "\n")
    else:
        output.result(_table(reports, lifetimes, now))
    return EXIT_FAILED if any(each.comparison.verdict is Verdict.FAIL for each in reports) else EXIT_OK


async def _identity(
    target: Target, what: str, namespace: str, control_plane: str | None
) -> tuple[list[Report], Lifetimes, datetime]:
    async with connect(kubeconfig=target.kubeconfig, context=target.context) as api:
        where = control_plane or await find_control_plane(api) or names.DEFAULT_CONTROL_PLANE_NAMESPACE
        view = View(api, now=datetime.now(UTC), control_plane=where, only=namespace)
        pods = chosen(await view.pods(), what, namespace)
        config = await view.config()
        # Read once, before many ask for it at the same time.
        await view.bundle()
        gate = asyncio.Semaphore(_CONCURRENCY)

        async def look(pod: Pod) -> Report:
            async with gate:
                return await _look(api, view, pod)

        reports = await asyncio.gather(*(look(pod) for pod in pods))
        return reports, Lifetimes.of(config.identity), view.now


def chosen(pods: Sequence[Pod], what: str, namespace: str) -> list[Pod]:
    """The pods that `what` names: a pod, or `kind/name` of a workload. Raises CliError when there is none."""
    kind, slash, name = what.partition("/")
    kind = _SHORT.get(kind.lower(), kind.lower()) if slash else "pod"
    name = name if slash else what
    found = [
        pod
        for pod in pods
        if (
            pod.metadata.name == name
            if kind == "pod"
            else (workload_of(pod).kind, workload_of(pod).name) == (kind, name)
        )
    ]
    if not found:
        raise CliError(f"there is no pod of {what} in namespace {namespace}", hint=f"kubectl -n {namespace} get pods")
    return sorted(found, key=lambda pod: pod.metadata.name)


async def _look(api: HttpApi, view: View, pod: Pod) -> Report:
    config, bundle = await view.config(), await view.bundle()
    namespace, name = pod.metadata.namespace, pod.metadata.name
    identity = str(TrustDomain.parse(config.trust_domain).workload(namespace, pod.spec.service_account))
    if not is_injected(pod):
        lacking = Comparison(State.NOT_SERVED, Verdict.FAIL, "it has no sidecar")
        return Report(pod, identity, None, None, lacking, f"autotls check -n {namespace} says why")
    issued = await _issued(view, pod)
    ports = (pod.metadata.annotation(names.PORTS_ANNOTATION) or "").split(",")
    try:
        # Any port will do: it is looked at before, and dialled only after a handshake with a certificate of ours.
        port = int(ports[0] or "80")
        served: Served = await handshake(api, namespace=namespace, pod=name, server_port=port, bundle=bundle)
    except ForbiddenError as error:
        raise CliError(f"you may not look: {error.message}", hint="it needs `create` on pods/portforward") from error
    except (ApiError, CliError) as error:
        return Report(
            pod, identity, None, issued, Comparison(State.NOT_SERVED, Verdict.FAIL, error.message), error.hint
        )
    comparison = compare(served, issued, identity, Lifetimes.of(config.identity), view.now)
    hint = "" if comparison.verdict is Verdict.OK else f"{view.kubectl} logs deployment/{names.CA}"
    return Report(pod, identity, served.leaf, issued, comparison, hint)


async def _issued(view: View, pod: Pod) -> x509.Certificate | None:
    """The certificate in the pod's Secret; its key is not decoded. None when there is no Secret, or no certificate."""
    secret = names.identity_secret_name(pod.spec.service_account)
    found = await view.find(f"/api/v1/namespaces/{pod.metadata.namespace}/secrets/{secret}", Secret)
    pem = (found.data or {}).get(names.TLS_CERT_KEY) if found else None
    try:
        return parse_certificates(base64.b64decode(pem), names.TLS_CERT_KEY)[0] if pem else None
    except AutotlsError:
        return None


def _table(reports: Sequence[Report], lifetimes: Lifetimes, now: datetime) -> str:
    rows = [_HEADER, *(_row(each, lifetimes, now) for each in reports)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADER) - 1)]
    lines: list[str] = []
    for row, report in zip(rows, [None, *reports], strict=True):
        state = row[-1]
        if report:
            colour = COLOURS[report.comparison.verdict]
            state = output.paint(state, colour, stream_is_terminal=sys.stdout.isatty())
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join([*cells, state]))
    for report in reports:
        if report.comparison.state is not State.MATCH:
            lines.append(f"{report.pod.metadata.name}: {report.comparison.message}")
            lines += [f"  → {report.hint}"] if report.hint else []
    return "\n".join(lines) + "\n"


def _row(report: Report, lifetimes: Lifetimes, now: datetime) -> tuple[str, ...]:
    name, state, leaf = report.pod.metadata.name, report.comparison.state.value, report.served
    if leaf is None:
        return (name, report.identity, "-", "-", "-", "-", state)
    left, due = leaf.not_valid_after_utc - now, renewal_due(leaf, lifetimes) - now
    return (name, report.identity, f"{leaf.serial_number:x}"[:16], _issuer(leaf), told(left), told(due), state)


def _issuer(leaf: x509.Certificate) -> str:
    return leaf.issuer.rfc4514_string().removeprefix("CN=") or "-"


def _plain(report: Report, lifetimes: Lifetimes) -> Mapping[str, Any]:
    lag = report.comparison.lag
    return {
        "namespace": report.pod.metadata.namespace,
        "pod": report.pod.metadata.name,
        "identity": report.identity,
        "served": _certificate(report.served, lifetimes),
        "issued": _certificate(report.issued, lifetimes),
        "state": report.comparison.state.value,
        "verdict": report.comparison.verdict.value,
        "message": report.comparison.message,
        "hint": report.hint,
        "lagSeconds": None if lag is None else int(lag.total_seconds()),
    }


def _certificate(leaf: x509.Certificate | None, lifetimes: Lifetimes) -> Mapping[str, Any] | None:
    if leaf is None:
        return None
    return {
        "serial": f"{leaf.serial_number:x}",
        "issuer": _issuer(leaf),
        "notBefore": leaf.not_valid_before_utc.isoformat(),
        "notAfter": leaf.not_valid_after_utc.isoformat(),
        "renewalDue": renewal_due(leaf, lifetimes).isoformat(timespec="seconds"),
    }
