"""Whether a pod with a sidecar reached another one in plaintext: the fallback of optional mode.

A warning and no failure: one connection that took too long on a busy node does it too, and TLS is back in a minute.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cli.checks.model import Finding, Result, Verdict, of_findings
from cli.checks.view import View
from cli.checks.workload import is_injected, owner_of, runs
from cli.output import harmless
from kube.errors import ApiError, ForbiddenError
from mesh import names, series
from mesh.pod import Pod
from mesh.reasons import Plaintext
from mesh.workload import workload_of
from telemetry.causes import FILTER, samples_of
from telemetry.exposition import Series, parse, series_of
from telemetry.reasons import Attempts, Sample, attempts, cluster_label, refine, turned_away

_CONCURRENCY: Final = 16
_TIMEOUT_S: Final = 10.0
_QUERY: Final = (("usedonly", ""), ("filter", rf"^autotls\.rq\.|{FILTER}"))
_REQUESTS: Final = series.EXPOSED + series.REQUESTS
_HINTS: Final = {
    Plaintext.NO_IDENTITY_CLIENT: "see `identities-served`",
    Plaintext.NO_IDENTITY_SERVER: "see `identities-served`: the server's",
    Plaintext.HANDSHAKE_FAILED: "see `identities-served`, of both; `autotls prove` shows the handshake",
    Plaintext.UNREACHABLE: "see `proxies-answer`; a NetworkPolicy may forbid port 15108 of the server",
}
_ELSE: Final = "`autotls prove` tries one connection and reports each step"


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one proxy counted since its start; Envoy forgets a series that was idle for five to ten minutes."""

    pod: Pod
    requests: tuple[Series, ...]
    evidence: tuple[Sample, ...]


async def plaintext_to_meshed(view: View) -> Result:
    """One finding for each client workload, server workload and cause. Raises ForbiddenError."""
    gate = asyncio.Semaphore(_CONCURRENCY)
    pods = [pod for pod in await view.pods() if is_injected(pod) and runs(pod)]
    asked = await asyncio.gather(*(_ask(view, pod, gate) for pod in pods))
    answers = [each for each in asked if each]
    findings = list(fallbacks(answers))
    return of_findings(findings, f"{len(answers)} proxies", "pairs of meshed workloads use plaintext")


def fallbacks(answers: Iterable[_Answer]) -> Iterable[Finding]:
    answers = tuple(answers)
    servers = frozenset(str(workload_of(each.pod)) for each in answers if turned_away(each.evidence))
    counted: dict[tuple[str, str, Plaintext], float] = defaultdict(float)
    for each in answers:
        tried = attempts(each.evidence)
        for found in each.requests:
            if found.labels.get(series.REASON) == Plaintext.TLS_FAILED:
                dst, svc = found.labels.get(series.DST, ""), found.labels.get(series.SVC, "")
                cause = refine(tried.get(cluster_label(svc), Attempts()), server_without_identity=dst in servers)
                counted[owner_of(each.pod).text, harmless(dst or svc), cause] += found.value
    for (client, server, cause), value in sorted(counted.items()):
        message = f"in plaintext to {server}, which has a sidecar: {cause} ({value:.0f} requests or connections)"
        yield Finding(Verdict.WARN, client, message, _HINTS.get(cause, _ELSE))


async def _ask(view: View, pod: Pod, gate: asyncio.Semaphore) -> _Answer | None:
    """None where the proxy does not answer: `proxies-answer` says so."""
    where = f"/api/v1/namespaces/{pod.metadata.namespace}/pods/{pod.metadata.name}:{names.STATUS_PORT}/proxy/metrics"
    async with gate:
        try:
            text = await view.api.request("GET", where, query=_QUERY, timeout_s=_TIMEOUT_S)
        except ForbiddenError:
            raise
        except ApiError:
            return None
    requests = {key: value for key, value in parse(text).items() if key.startswith(_REQUESTS.encode() + b"{")}
    return _Answer(pod, tuple(series_of(requests)), tuple(samples_of(text)))
