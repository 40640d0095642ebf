"""A node's configuration keeps clusters on one machine apart."""

import tomllib
from pathlib import Path

import pytest

from cluster import controlplane, node
from cluster.controlplane import ControlPlane
from cluster.layout import Cache, ClusterName, RunFolder
from cluster.network import Link


def folder(name: str) -> RunFolder:
    return Cache(Path("/cache")).cluster(ClusterName(name))


def plane(name: str) -> ControlPlane:
    return ControlPlane(folder(name).root, ("10.123.0.2",), "::", controlplane.service_ranges(ipv6=True))


def strings(value: object) -> set[str]:
    if isinstance(value, dict):
        return set().union(*(strings(part) for part in value.values()))
    if isinstance(value, list):
        return set().union(*(strings(part) for part in value))
    return {str(value)}


def test_two_clusters_share_no_path_and_no_cgroup() -> None:
    for build in (
        lambda name: tomllib.loads(node.containerd_config(folder(name))),
        lambda name: node.kubelet_config(folder(name), plane(name)),
        lambda name: node.cni_config(folder(name), Link(0, ipv6=True)),
    ):
        shared = strings(build("one")) & strings(build("two"))
        assert not [text for text in shared if text.startswith(("/", "unix:"))]


def test_the_kubelet_runs_pods_below_its_own_cgroup_root() -> None:
    assert node.kubelet_config(folder("one"), plane("one"))["cgroupRoot"] == "/autotls-one"


@pytest.mark.parametrize(("ipv6", "families"), [(True, 2), (False, 1)])
def test_pods_get_an_address_of_each_family(ipv6: bool, families: int) -> None:
    bridge = node.cni_config(folder("one"), Link(0, ipv6=ipv6))["plugins"][0]  # type: ignore[index]
    assert len(bridge["ipam"]["ranges"]) == len(bridge["ipam"]["routes"]) == families


def test_the_api_server_serves_clients_of_the_clusters_authority_only() -> None:
    command = controlplane.apiserver_command(plane("one"), Path("/bin/kube-apiserver"))
    assert "--client-ca-file=/cache/clusters/one/pki/ca.crt" in command
    assert "--requestheader-client-ca-file=/cache/clusters/one/pki/front-proxy-ca.crt" in command
    assert not [flag for flag in command if "insecure" in flag or "always-allow" in flag.lower()]
