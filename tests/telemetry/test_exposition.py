"""What is read out of a proxy's Prometheus text."""

import math
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.exposition import UPTIME, Series, parse, series_of
from tests.telemetry.scenes import escaped

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
    assert sorted(found.values()) == [0, 7, 17, 42, 42, 1_500_000]


def test_histogram_is_one_series_with_its_buckets() -> None:
    found = {each.name: each for each in series_of(parse(TEXT))}
    assert found["envoy_autotls_rq_us"] == Series(
        "envoy_autotls_rq_us", {"dir": "outbound"}, buckets={0.5: 0, math.inf: 42}
    )
    assert found["envoy_autotls_rq_us_sum"].value == 1_500_000


def test_braces_and_spaces_within_a_label_do_not_end_it() -> None:
    found = next(each for each in series_of(parse(TEXT)) if each.value == 7)
    assert found.labels == {"dir": "outbound", "reason": "not_meshed", "authority": "a} 9", "code": "503"}


@pytest.mark.parametrize("text", [b"", b"\n\n", b"envoy_autotls_rq", b"envoy_autotls_rq{} -", b"<html>", b"\xff\xfe"])
def test_what_is_no_sample_is_skipped(text: bytes) -> None:
    assert parse(text) == {}


def test_a_value_that_is_no_number_leaves_the_others() -> None:
    found = parse(b'envoy_autotls_rq{code="200"} 1\nenvoy_autotls_rq{code="404"} -\nenvoy_autotls_rq{code="503"} 2\n')
    assert sorted(found.values()) == [1, 2]


@given(st.dictionaries(st.sampled_from(["authority", "svc", "peer"]), st.text(max_size=40), min_size=1))
def test_labels_come_back_whatever_they_hold(labels: dict[str, str]) -> None:
    line = "envoy_autotls_rq{" + ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items()) + "} 3\n"
    (found,) = series_of(parse(line.encode("utf-8", errors="replace")))
    assert found.value == 3
    assert found.labels == {name: value.encode("utf-8", errors="replace").decode() for name, value in labels.items()}


@given(st.binary(max_size=300) | st.text(alphabet=string.printable, max_size=300).map(str.encode))
def test_nothing_that_a_pod_answers_breaks_the_reader(text: bytes) -> None:
    series_of(parse(b"envoy_autotls_" + text))
