"""Addresses of clusters side by side."""

import itertools
import json
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from cluster import network
from cluster.errors import StartError
from cluster.layout import ClusterName, RunFolder
from cluster.network import Link


def test_links_of_different_clusters_never_overlap() -> None:
    links = [Link(index, ipv6=True) for index in range(300)]
    for one, other in itertools.combinations(links, 2):
        assert not IPv4Network(f"{one.host}/30", strict=False).overlaps(IPv4Network(f"{other.host}/30", strict=False))
        assert one.node_v6 != other.node_v6
        assert one.device != other.device


def test_both_ends_are_in_one_subnet_that_pods_and_services_do_not_use() -> None:
    link = Link(16383, ipv6=False)
    assert str(link.host) == "10.123.255.253"
    assert str(link.node) == "10.123.255.254"
    for other in (network.PODS, network.SERVICES):
        assert not network.LINKS.overlaps(IPv4Network(other))


def test_a_device_name_fits_the_kernel() -> None:
    assert len(Link(16383, ipv6=False).device) <= 15


def test_ipv4_is_the_primary_family() -> None:
    assert Link(1, ipv6=True).node_addresses == ("10.123.0.6", "fd7a:7475:6c73:1::2")
    assert Link(1, ipv6=False).node_addresses == ("10.123.0.6",)


def test_the_lowest_free_index_is_chosen() -> None:
    assert network.choose_index({0, 1, 3}) == 2


def test_no_free_index_is_said_so() -> None:
    with pytest.raises(StartError, match="all subnets"):
        network.choose_index(range(2**14))


def test_a_namespace_of_an_earlier_boot_or_another_cache_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "_NETNS", tmp_path / "netns")
    folder = RunFolder(ClusterName("mine"), tmp_path / "mine")
    folder.root.mkdir(parents=True)
    namespace = tmp_path / "netns" / folder.netns
    namespace.parent.mkdir()
    namespace.touch()
    assert not network.owns_namespace(folder)

    record = {"index": 0, "ipv6": False, "inode": namespace.stat().st_ino, "boot": network.boot_id()}
    for wrong in ({"inode": record["inode"] + 1}, {"boot": "an earlier one"}):
        folder.link.write_text(json.dumps(record | wrong))
        assert not network.owns_namespace(folder)
    folder.link.write_text(json.dumps(record))
    assert network.owns_namespace(folder)
    namespace.unlink()
    assert not network.owns_namespace(folder)
