"""Who is calling, from what a caller cannot choose."""

from __future__ import annotations

import pytest

from discovery.errors import PeerError, Refusal
from discovery.peers import authenticate, claimed_pod, peer_address, still_valid
from discovery.scope import EVERYBODY, EVERYTHING, Reach, reach_of
from tests.discovery.cluster import Mesh
from tests.discovery.objects import identity, namespace, pod


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.1:4242", "10.0.0.1"),
        ("ipv6:%5Bfd00::1%5D:4242", "fd00::1"),
        ("ipv6:[fd00::1]:4242", "fd00::1"),
        ("ipv6:[::ffff:10.0.0.1]:4242", "10.0.0.1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", "fe80::1"),
    ],
)
def test_the_address_is_read_from_grpcs_name_of_the_peer(peer: str, address: str) -> None:
    assert peer_address(peer) == address


@pytest.mark.parametrize("peer", ["unix:/run/x", "", "ipv4:", "dns:a"])
def test_a_peer_without_an_address_is_refused(peer: str) -> None:
    with pytest.raises(PeerError):
        peer_address(peer)


def test_pods_names_may_have_dots() -> None:
    assert claimed_pod("web.v1-0.shop") == "shop/web.v1-0"
    assert claimed_pod("web") == ""


@pytest.mark.parametrize(
    ("identity_", "address", "node", "refusal"),
    [
        (identity("client"), "10.0.0.1", "client.shop", None),
        (identity("client"), "10.0.0.1", "", None),
        (identity("web"), "10.0.0.1", "client.shop", Refusal.OTHER_IDENTITY),
        (identity("client", "other"), "10.0.0.1", "client.shop", Refusal.OTHER_IDENTITY),
        (identity("client"), "10.0.0.1", "web.shop", Refusal.OTHER_POD),
        (identity("client"), "10.9.9.9", "client.shop", Refusal.UNKNOWN_ADDRESS),
        (identity("client"), "10.9.9.9", "late.shop", None),
        (identity("web"), "10.9.9.9", "late.shop", Refusal.OTHER_IDENTITY),
        (identity("web"), "10.0.0.1", "late.shop", Refusal.OTHER_IDENTITY),
    ],
)
def test_certificate_address_and_claim_must_agree(
    identity_: str, address: str, node: str, refusal: Refusal | None
) -> None:
    mesh = Mesh()
    mesh.put(
        pod("client", "10.0.0.1", service_account="client"),
        pod("web", "10.0.0.2", service_account="web"),
        pod("late", service_account="client"),
    )
    try:
        authenticate(identity_, address, node, mesh.world)
        found = None
    except PeerError as error:
        found = error.refusal
    assert found is refusal


def test_a_stream_is_valid_while_its_pod_is_the_one_that_opened_it() -> None:
    mesh = Mesh()
    mesh.put(pod("client", "10.0.0.1", service_account="client"))
    found = mesh.world.pod("shop/client")
    assert still_valid(found, identity("client"), "uid-client", "10.0.0.1")
    assert not still_valid(found, identity("client"), "uid-before", "10.0.0.1")
    assert not still_valid(found, identity("client"), "uid-client", "10.0.0.2")
    assert not still_valid(None, identity("client"), "uid-client", "10.0.0.1")


def test_reach_is_the_pods_own_or_its_namespaces_or_what_can_be_expected() -> None:
    own = pod("a", annotations={"config.autotls.io/reach": "data/db, shop"}).metadata
    assert reach_of(own, namespace(reach="x").metadata) == Reach(frozenset({"data/db", "shop"}))
    assert reach_of(pod("a").metadata, namespace(reach="x").metadata) == Reach(frozenset({"x"}))
    assert reach_of(pod("a").metadata, namespace(reach=" * ").metadata) == EVERYTHING
    assert reach_of(pod("a").metadata, namespace().metadata) == Reach(home="shop")
    # Nothing readable in it: as if it were not there, because a typo must not take TLS away.
    assert reach_of(pod("a", annotations={"config.autotls.io/reach": "!!"}).metadata, None) == Reach(home="shop")


def test_a_reach_covers_services_and_pods_of_its_namespaces() -> None:
    reach = Reach(frozenset({"data/db", "shop"}))
    assert reach.covers(("data/db",))
    assert reach.covers(("shop/web",))
    assert reach.covers(("shop/",))
    assert reach.covers(("data/", "data/db"))
    assert not reach.covers(("data/", "data/cache"))
    assert Reach().covers(())


def test_without_a_reach_it_is_what_is_for_everybody_and_the_pods_of_the_own_namespace() -> None:
    reach = Reach(home="shop")
    assert reach.covers((EVERYBODY, "data/db"))
    assert reach.covers(("shop/", "shop/web"))
    assert not reach.covers(("data/", "data/cache"))
    # A Service of the own namespace that sends to a pod of another says nothing about the pod's own address.
    assert not reach.covers(("data/", "shop/web"))
