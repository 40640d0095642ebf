"""The Prometheus text of a proxy, read fast: only our own series, and labels only where somebody asks for them. Pure.

Format: Prometheus text exposition 0.0.4, as Envoy's `/stats/prometheus` writes it (one sample a line, braces also
where there is no label, no timestamps). A hundred proxies are ten megabytes; whatever is not ours is skipped by one
regular expression, and most series do not change within a window, so their labels are never looked at.
"""

import re
from collections.abc import Mapping
from typing import Final

# `name{labels}` -> value. The key is the series as the proxy wrote it, which is the same in each of its answers.
Samples = Mapping[bytes, float]

# Seconds since Envoy started; written at each flush of the statistics (5 s, proxy/bootstrap.yaml.in), so it lags.
UPTIME: Final = b"envoy_server_uptime{}"

# A label's value may hold `} `; the greedy match ends at the last one. Line breaks are escaped by Envoy.
_OURS: Final = re.compile(
    rb"^(envoy_(?:autotls_|server_(?:uptime|stats_overflow_))[^ {]*(?:\{.*\})?) ([-+.0-9eE]+)\r?$", re.MULTILINE
)
_LABEL: Final = re.compile(rb'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPED: Final = re.compile(rb"\\(.)")
_UNESCAPED: Final = {b"n": b"\n"}


def parse(text: bytes) -> dict[bytes, float]:
    """Every sample of ours in `text`. What is no sample, or no number, is skipped: a scrape is never worth an error."""
    found: dict[bytes, float] = {}
    for key, value in _OURS.findall(text):
        try:
            found[key] = float(value)
        except ValueError:
            continue
    return found


def series_of(key: bytes) -> tuple[str, dict[str, str]]:
    """Name and labels of a key of `parse`; bytes that are no UTF-8 are replaced."""
    name, _, rest = key.partition(b"{")
    labels = {
        label.decode(): (_ESCAPED.sub(_unescape, value) if b"\\" in value else value).decode(errors="replace")
        for label, value in _LABEL.findall(rest)
    }
    return name.decode(), labels


def _unescape(match: re.Match[bytes]) -> bytes:
    return _UNESCAPED.get(match[1], match[1])
