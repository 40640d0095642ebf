"""What is read out of a proxy's Prometheus text."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.exposition import UPTIME, parse, series_of

TEXT = b"""# TYPE envoy_autotls_rq counter
envoy_autotls_rq{dir="outbound",reason="",authority="web",code="200"} 42
envoy_autotls_rq{dir="outbound",reason="not_meshed",authority="a} 9",code="503"} 7
# TYPE envoy_cluster_upstream_cx_total counter
envoy_cluster_upstream_cx_total{envoy_cluster_name="web"} 3
# TYPE envoy_server_uptime gauge
envoy_server_uptime{} 17

# TYPE envoy_autotls_rq_us histogram
envoy_autotls_rq_us_bucket{dir="outbound",le="0.5"} 0
envoy_autotls_rq_us_bucket{dir="outbound",le="+Inf"} 42
envoy_autotls_rq_us_sum{dir="outbound"} 1.5e+06
"""


def test_our_series_are_read_and_all_others_are_skipped() -> None:
    found = parse(TEXT)
    assert found[UPTIME] == 17
    assert {series_of(key)[0] for key in found} == {
        "envoy_autotls_rq",
        "envoy_server_uptime",
        "envoy_autotls_rq_us_bucket",
        "envoy_autotls_rq_us_sum",
    }
    assert sorted(found.values()) == [0, 7, 17, 42, 42, 1_500_000]


def test_braces_and_spaces_within_a_label_do_not_end_it() -> None:
    key = next(key for key, value in parse(TEXT).items() if value == 7)
    assert series_of(key)[1] == {"dir": "outbound", "reason": "not_meshed", "authority": "a} 9", "code": "503"}


@pytest.mark.parametrize("text", [b"", b"\n\n", b"envoy_autotls_rq", b"envoy_autotls_rq{} -", b"<html>", b"\xff\xfe"])
def test_what_is_no_sample_is_skipped(text: bytes) -> None:
    assert parse(text) == {}


@given(st.dictionaries(st.sampled_from(["authority", "svc", "peer"]), st.text(max_size=40), min_size=1))
def test_labels_come_back_whatever_they_hold(labels: dict[str, str]) -> None:
    # Envoy escapes these three in a label's value (source/server/admin/prometheus_stats.cc, sanitizeValue).
    escaped = {
        name: value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for name, value in labels.items()
    }
    line = "envoy_autotls_rq{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "} 3\n"
    found = parse(line.encode("utf-8", errors="replace"))
    assert list(found.values()) == [3]
    assert series_of(next(iter(found)))[1] == {
        name: value.encode("utf-8", errors="replace").decode() for name, value in labels.items()
    }


@given(st.binary(max_size=300) | st.text(alphabet=string.printable, max_size=300).map(str.encode))
def test_nothing_that_a_pod_answers_breaks_the_reader(text: bytes) -> None:
    for key in parse(b"envoy_autotls_" + text):
        series_of(key)
