"""Bytes: what is written by hand is what protobuf would have written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.api import Message, discovery_pb2, hcm_pb2, stats_pb2, tcp_proxy_pb2
from discovery.clusters import build_cluster
from discovery.listeners import build_listener
from discovery.protocols import Protocol
from discovery.resources import CLUSTER, resource, response
from discovery.statistics import http_statistics
from discovery.tls import Mode
from discovery.wire import varint
from mesh import series


@given(st.lists(st.text(min_size=1, max_size=30), unique=True, max_size=5), st.lists(st.text(min_size=1), max_size=3))
def test_a_response_is_what_protobuf_reads_back(names: list[str], removed: list[str]) -> None:
    resources = [
        resource(CLUSTER, name, build_cluster(name, ["spiffe://a/b"], Mode.OPTIONAL, Protocol.HTTP)) for name in names
    ]
    read = discovery_pb2.DeltaDiscoveryResponse.FromString(response(CLUSTER, "7", resources, removed))
    assert (read.type_url, read.nonce, list(read.removed_resources)) == (CLUSTER, "7", removed)
    assert [(entry.name, entry.version) for entry in read.resources] == [(r.name, r.version) for r in resources]
    assert {entry.resource.type_url for entry in read.resources} <= {CLUSTER}


@given(st.integers(0, 2**63))
def test_numbers_are_encoded_in_seven_bits_a_byte(number: int) -> None:
    encoded = varint(number)
    assert sum((byte & 127) << 7 * place for place, byte in enumerate(encoded)) == number
    assert [byte >> 7 for byte in encoded] == [1] * (len(encoded) - 1) + [0]


def test_the_version_is_of_the_content_alone() -> None:
    one, two = (
        resource(CLUSTER, "a", build_cluster("a", pins, Mode.STRICT, Protocol.HTTP))
        for pins in (["x", "y"], ["y", "x"])
    )
    other = resource(CLUSTER, "a", build_cluster("a", ["x"], Mode.STRICT, Protocol.HTTP))
    assert one.version == two.version != other.version


def test_a_cluster_without_a_pin_is_never_built() -> None:
    with pytest.raises(ValueError, match="no identity"):
        build_cluster("a", [], Mode.STRICT, Protocol.HTTP)


@pytest.mark.parametrize("protocol", [Protocol.HTTP, Protocol.TCP])
def test_peers_that_are_too_busy_to_accept_are_tried_for_ten_seconds(protocol: Protocol) -> None:
    timeout = build_cluster("a", ["x"], Mode.OPTIONAL, protocol).connect_timeout
    (chain,) = build_listener("a", "10.96.0.1", 80, "a", protocol).filter_chains
    config = chain.filters[-1].typed_config
    if protocol is Protocol.TCP:
        attempts = unpacked(config, tcp_proxy_pb2.TcpProxy()).max_connect_attempts.value
    else:
        manager = unpacked(config, hcm_pb2.HttpConnectionManager())
        attempts = 1 + manager.route_config.virtual_hosts[0].routes[0].route.retry_policy.num_retries.value
    assert attempts * timeout.seconds >= 10


def test_a_connection_whose_protocol_nobody_declared_is_looked_at_for_fifty_milliseconds_at_most() -> None:
    listener = build_listener("a", "10.96.0.1", 80, "a", Protocol.DETECTED)
    assert listener.listener_filters_timeout.ToMilliseconds() <= 50
    assert listener.continue_on_listener_filters_timeout
    for declared in (Protocol.HTTP, Protocol.WEBSOCKET, Protocol.TCP):
        assert not build_listener("a", "10.96.0.1", 80, "a", declared).listener_filters


def unpacked(packed: Message, into: Message) -> Message:
    assert packed.Unpack(into)
    return into


def test_the_statistics_scope_is_written_by_hand_until_the_package_knows_it() -> None:
    assert "stats_scope" not in stats_pb2.Config.DESCRIPTOR.fields_by_name, "xds-protos knows it: drop _scope()"
    for logger, name in zip(http_statistics(), ("traffic", "authority"), strict=True):
        packed = logger.typed_config.value
        assert series.SCOPE.encode() in packed
        assert name.encode() in packed
        assert varint(series.LIMITS[name].counters) in packed
        config = stats_pb2.Config.FromString(packed)
        assert config.counters or config.histograms
