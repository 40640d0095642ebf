"""The same counters out of Prometheus: what to ask it, and its answers as series. Pure.

Expects the labels `namespace` and `pod` on every series, as the chart's PodMonitor makes them. Sources: Prometheus'
HTTP API (prometheus.io/docs/prometheus/latest/querying/api/) and its query language.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from mesh import series
from mesh.errors import AutotlsError
from telemetry.exposition import Series, number
from telemetry.reasons import EVIDENCE, Sample
from telemetry.workloads import PodFacts

_UPTIME: Final = 'envoy_server_uptime{namespace!="",pod!=""}'
_COUNTERS: Final = (
    *(series.EXPOSED + name for name in (series.REQUESTS, series.RECEIVED, series.SENT)),
    *(series.CLUSTER_SENT, series.CLUSTER_RECEIVED),
)
# The proxies that it knows, and those that left something out.
PROXIES: Final = _UPTIME
TRUNCATED: Final = f"{series.DROPPED_COUNTERS} > 0 or {series.DROPPED_HISTOGRAMS} > 0"
# Its clock, which all questions of a window are about.
NOW: Final = "time()"
_BOUND: Final = "le"


class PrometheusError(AutotlsError):
    """Prometheus did not answer, or with an error."""


def evidence(pods: Iterable[PodFacts]) -> str:
    """The question for what telemetry.causes needs of these pods."""
    # Escaped twice: for the expression, and for the string that it stands in.
    names = "|".join(sorted({re.escape(pod.name) for pod in pods})).replace("\\", "\\\\")
    return f'{{__name__=~"{"|".join(sorted(EVIDENCE))}",pod=~"{names}"}}'


def span(window_s: float) -> str:
    """The seconds between the samples that the window's ends fall on: Prometheus only looks now and then."""
    return f"avg(timestamp({_UPTIME}) - timestamp({_UPTIME} offset {_duration(window_s)}))"


def increases(window_s: float) -> Mapping[str, str]:
    """Series (a histogram without suffix) -> the question for what was added to it in the window.

    By the rules of telemetry.window, not by increase(): that one guesses what happened outside of the samples, and
    leaves out the first value of a series that is new.
    """
    questions = {name: f"{_added(name, window_s)} > 0" for name in _COUNTERS}
    histogram = series.EXPOSED + series.REQUEST_US
    moved = f"{_added(f'{histogram}_count', window_s)} > 0"
    questions[histogram] = f"{_added(f'{histogram}_bucket', window_s)} and ignoring({_BOUND}) ({moved})"
    return questions


def _added(name: str, window_s: float) -> str:
    this, ago, on = f'{name}{{namespace!="",pod!=""}}', f"offset {_duration(window_s)}", "on(namespace,pod)"
    started = f"{_UPTIME} < {window_s:g}"
    differences = f"(({this} - {this} {ago}) >= 0 unless {on} ({started}))"
    # New series and those that were reset count from zero, but only of proxies that are known to have been there.
    whole = f"({this} and {on} ({_UPTIME} {ago} or {started}))"
    return f"({differences} or {whole})"


def _duration(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


class _Sample(msgspec.Struct, frozen=True):
    metric: dict[str, str]
    value: tuple[float, str]


class _Data(msgspec.Struct, frozen=True):
    result: msgspec.Raw = msgspec.Raw(b"[]")


class _Answer(msgspec.Struct, frozen=True):
    status: str = ""
    data: _Data = _Data()
    error: str = ""


def scalar(body: bytes) -> float | None:
    """The number of an answer that is one, or a vector of one; None when it is empty. Raises PrometheusError."""
    raw = _result(body)
    try:
        return float(msgspec.json.decode(raw, type=tuple[float, str])[1])
    except msgspec.ValidationError:
        found = _vector(raw)
        return float(found[0].value[1]) if found else None


def pods(body: bytes) -> frozenset[str]:
    """`namespace/name` of every pod in an answer. Raises PrometheusError."""
    return frozenset(_pod(each.metric) for each in _vector(_result(body)))


def series_by_pod(name: str, body: bytes) -> dict[str, list[Series]]:
    """What was added, for each pod; a histogram's buckets together. Raises PrometheusError."""
    found: dict[str, list[Series]] = defaultdict(list)
    buckets: dict[tuple[str, frozenset[tuple[str, str]]], dict[float, float]] = defaultdict(dict)
    for each in _vector(_result(body)):
        labels, value = each.metric, float(each.value[1])
        if _BOUND in labels:
            rest = frozenset(item for item in labels.items() if item[0] != _BOUND)
            buckets[_pod(labels), rest][number(labels[_BOUND])] = value
        else:
            found[_pod(labels)].append(Series(name, labels, value))
    for (pod, labels), counts in buckets.items():
        found[pod].append(Series(name, dict(labels), buckets=counts))
    return found


def samples_by_pod(body: bytes) -> dict[str, list[Sample]]:
    """Evidence for each pod. Raises PrometheusError."""
    found: dict[str, list[Sample]] = defaultdict(list)
    for each in _vector(_result(body)):
        found[_pod(each.metric)].append((each.metric.get("__name__", ""), each.metric, float(each.value[1])))
    return found


def merged(parts: Iterable[Mapping[str, list[Series]]]) -> dict[str, list[Series]]:
    found: dict[str, list[Series]] = defaultdict(list)
    for part in parts:
        for pod, added in part.items():
            found[pod].extend(added)
    return found


def _pod(labels: Mapping[str, str]) -> str:
    return f"{labels.get('namespace', '')}/{labels.get('pod', '')}"


def _result(body: bytes) -> msgspec.Raw:
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except msgspec.MsgspecError as error:
        raise PrometheusError("the answer is not Prometheus'", hint="is this the address of its HTTP API?") from error
    if answer.status != "success":
        raise PrometheusError(f"Prometheus refused the query: {answer.error[:200]}")
    return answer.data.result


def _vector(raw: msgspec.Raw) -> list[_Sample]:
    try:
        return msgspec.json.decode(raw, type=list[_Sample])
    except msgspec.ValidationError as error:
        raise PrometheusError("Prometheus answered with something else than a vector") from error
