"""Why there was no mutual TLS between meshed pods: the cause that the counters name replaces the label. Pure.

The label is the endpoint's, which knows no more than that the fallback was used. Only where a window holds some of it
are the proxies of both ends asked for the evidence (telemetry.reasons).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from mesh.reasons import Plaintext
from telemetry.exposition import labels_of
from telemetry.flows import Flow
from telemetry.ledger import Ledger, ledger
from telemetry.reasons import EVIDENCE, Attempts, Sample, attempts, cluster_label, own_fault, refine, turned_away
from telemetry.workloads import PodFacts

# Pod (`namespace/name`) -> what its proxy counted since its start.
Evidence = Mapping[str, Iterable[Sample]]
# In Envoy's own names of the series.
FILTER: Final = (
    r"^cluster\..*(upstream_cx_connect_(fail|timeout)$|ssl\.(connection_error|fail_verify_)|secrets_not_ready)"
    r"|^listener\..*secrets_not_ready|^sds\.leaf\.update_success|^listener_manager\.lds\.update_success"
)
_SERIES: Final = re.compile(rb"^([a-z_]+)(\{.*\})? ([-+.0-9eE]+)\r?$", re.MULTILINE)


def samples_of(text: bytes) -> list[Sample]:
    """The evidence in a proxy's answer."""
    wanted = {name.encode(): name for name in EVIDENCE}
    return [
        (wanted[name], labels_of(labels), float(value))
        for name, labels, value in _SERIES.findall(text)
        if name in wanted
    ]


def suspects(book: Ledger) -> list[PodFacts]:
    """The pods whose proxies know the cause: those that fell back, and those that they wanted to reach.

    And those that have no configuration for a meshed destination: whether they ever had any.
    """
    found = {flow.seen_by.key: flow.seen_by for flow in book.flows() if flow.reason == Plaintext.OUT_OF_REACH}
    for flow in _failed(book):
        for pod in (flow.seen_by, *book.cluster.by_workload.get(flow.server.name, ())):
            if pod.meshed:
                found[pod.key] = pod
    return list(found.values())


def explained(book: Ledger, evidence: Evidence) -> Ledger:
    """The ledger with causes in place of `tls_failed`, where the evidence names one."""
    told = {pod: attempts(samples) for pod, samples in evidence.items()}
    turned = {pod for pod, samples in evidence.items() if turned_away(samples)}
    causes: dict[tuple[str, str], Plaintext] = {}
    for flow in _failed(book):
        if flow.svc and not flow.authority:  # by authority it is not known which workload it was
            tried = told.get(flow.seen_by.key, {}).get(cluster_label(flow.svc), Attempts())
            servers = book.cluster.by_workload.get(flow.server.name, ())
            cause = refine(tried, server_without_identity=any(pod.key in turned for pod in servers))
            causes[flow.seen_by.key, flow.svc] = cause
            causes.setdefault((flow.seen_by.key, flow.server.name), cause)
    own = {pod: fault for pod, samples in evidence.items() if (fault := own_fault(samples))}
    return ledger((_with_cause(flow, causes, own) for flow in book.flows()), book.cluster)


def _with_cause(flow: Flow, causes: Mapping[tuple[str, str], Plaintext], own: Mapping[str, Plaintext]) -> Flow:
    if flow.reason == Plaintext.OUT_OF_REACH:
        return replace(flow, reason=own.get(flow.seen_by.key, Plaintext.OUT_OF_REACH))
    if flow.reason != Plaintext.TLS_FAILED:
        return flow
    # Bytes are not counted by Service.
    return replace(flow, reason=causes.get((flow.seen_by.key, flow.svc or flow.server.name), Plaintext.TLS_FAILED))


def _failed(book: Ledger) -> Iterable[Flow]:
    return (flow for flow in book.flows() if not flow.inbound and flow.reason == Plaintext.TLS_FAILED)
