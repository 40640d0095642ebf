"""The Prometheus text of a proxy, read fast: only our own series, and labels only where somebody asks for them. Pure.

Format: Prometheus text exposition 0.0.4, as Envoy's `/stats/prometheus` writes it (one sample a line, braces also
where there is no label, no timestamps). A hundred proxies are ten megabytes; whatever is not ours is skipped by one
regular expression, and most series do not change within a window, so their labels are never looked at.
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

# `name{labels}` -> value. The key is the series as the proxy wrote it, which is the same in each of its answers.
Samples = Mapping[bytes, float]

# Seconds since Envoy started; written at each flush of the statistics (5 s, proxy/bootstrap.yaml.in), so it lags.
UPTIME: Final = b"envoy_server_uptime{}"

# A label's value may hold `} `; the greedy match ends at the last one. Line breaks are escaped by Envoy.
_OURS: Final = re.compile(
    rb"^((?:envoy_(?:autotls_|server_(?:uptime|stats_overflow_)|listener_ssl_certificate_expiration_"
    rb"|cluster_upstream_cx_[rt]x_bytes_total)"
    rb"|autotls_ca_(?:root|issuer)_not_after_)[^ {]*(?:\{.*\})?) ([-+.0-9eE]+)\r?$",
    re.MULTILINE,
)
_LABEL: Final = re.compile(rb'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"')
_BUCKET: Final = b"_bucket{"
# Envoy writes the bound last.
_BOUND: Final = b'le="'
_ESCAPED: Final = re.compile(rb"\\(.)")
_UNESCAPED: Final = {b"n": b"\n"}
_LONGEST_REMEMBERED: Final = 512  # bytes


def parse(text: bytes) -> dict[bytes, float]:
    """Every sample of ours in `text`. What is no sample, or no number, is skipped: a scrape is never worth an error."""
    found = _OURS.findall(text)
    try:
        return {key: float(value) for key, value in found}
    except ValueError:
        return {key: float(value) for key, value in found if _is_number(value)}


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Series:
    """What was counted under one set of labels: `value`, or of a histogram `buckets` (upper bound -> cumulative)."""

    name: str  # of a histogram without `_bucket`
    labels: Mapping[str, str]
    value: float = 0.0
    buckets: Mapping[float, float] = field(default_factory=dict[float, float])


def series_of(samples: Samples) -> list[Series]:
    """The series of `samples`, each histogram as one; bytes that are no UTF-8 are replaced.

    A histogram's labels are read once for all its buckets, which are most of what a proxy says.
    """
    found: list[Series] = []
    histograms: dict[bytes, dict[float, float]] = defaultdict(dict)
    for key, value in samples.items():
        bound = key.rfind(_BOUND)
        if bound > 0 and _BUCKET in key:
            histograms[key[:bound]][_upper(key[bound + len(_BOUND) :])] = value
        else:
            name, _, rest = key.partition(b"{")
            found.append(Series(name.decode(), labels_of(rest), value))
    for key, buckets in histograms.items():
        name, _, rest = key.partition(_BUCKET)
        found.append(Series(name.decode(), labels_of(rest), buckets=buckets))
    return found


def labels_of(text: bytes) -> Mapping[str, str]:
    """What is between the braces of a series."""
    # An authority may be 8 kB, and come from anybody.
    return _remembered(text) if len(text) <= _LONGEST_REMEMBERED else _labels(text)


# Labels name workloads, so the proxies of all pods that call the same one write the same.
@lru_cache(maxsize=4096)
def _remembered(text: bytes) -> Mapping[str, str]:
    return _labels(text)


def _labels(text: bytes) -> Mapping[str, str]:
    return {
        label.decode(): (_ESCAPED.sub(_unescape, value) if b"\\" in value else value).decode(errors="replace")
        for label, value in _LABEL.findall(text)
    }


@lru_cache(maxsize=256)
def _upper(text: bytes) -> float:
    """The bound at the beginning of `text`, as `0.5"}`: proxies have the same twenty."""
    return number(text.partition(b'"')[0].decode(errors="replace"))


def number(bound: str) -> float:
    """A bucket's bound; what is no number is the infinite one."""
    try:
        return float(bound)
    except ValueError:
        return math.inf


def _unescape(match: re.Match[bytes]) -> bytes:
    return _UNESCAPED.get(match[1], match[1])
