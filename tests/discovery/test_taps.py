"""Sessions of a tap: whose entries they get, which of them, and how much at most."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from discovery.entries import (
    ADDRESS,
    NAMESPACE,
    POD,
    SERVICE,
    Entry,
    Line,
    Place,
    Selection,
    Target,
    faults,
)
from discovery.errors import TapLimitError
from discovery.naming import entry_of
from discovery.selecting import passes
from discovery.snapshot import PodFacts
from discovery.taps import MAX_SESSIONS, MAX_WAITING, Session, Taps
from mesh.pod import ObjectMeta, OwnerReference
from tests.discovery.cluster import Mesh
from tests.discovery.objects import endpoint_slice, namespace, pod, service
from tests.discovery.records import RECORD

SHOP = Selection(Target(NAMESPACE, "shop"))


def owned(entry: object, kind: str, name: str, **labels: str) -> object:
    metadata = entry.metadata
    owner = OwnerReference(kind=kind, name=name, uid="u", controller=True)
    merged = {**(metadata.labels or {}), **{key.replace("_", "-"): text for key, text in labels.items()}}
    changed = msgspec.structs.replace(metadata, owner_references=(owner,), labels=merged)
    assert isinstance(changed, ObjectMeta)
    return msgspec.structs.replace(entry, metadata=changed)


@pytest.fixture
def mesh() -> Mesh:
    mesh = Mesh()
    mesh.put(
        pod("client-0", "10.0.0.1", service_account="client"),
        owned(pod("web-6d4f-x", "10.0.0.2", service_account="web"), "ReplicaSet", "web-6d4f", pod_template_hash="6d4f"),
        pod("plain", "10.0.0.3", meshed=False),
        pod("other", "10.0.1.1", namespace="data"),
        service("web", "10.96.0.10"),
        endpoint_slice("web", "10.0.0.2"),
        service("sticky", "10.96.0.11", session_affinity="ClientIP"),
        endpoint_slice("sticky", "10.0.0.2"),
        service("plain", "10.96.0.12"),
        endpoint_slice("plain", "10.0.0.3"),
        pod("bare", "10.0.0.5", redirected=False),
        pod("skipping", "10.0.0.6", annotations={"config.autotls.io/skip-inbound-ports": "8080"}),
        service("skipping", "10.96.0.13"),
        endpoint_slice("skipping", "10.0.0.6"),
        service("sticky-plain", "10.96.0.14", session_affinity="ClientIP"),
        endpoint_slice("sticky-plain", "10.0.0.3"),
    )
    return mesh


def facts(mesh: Mesh, key: str) -> PodFacts:
    found = mesh.world.pod(key)
    assert found is not None
    return found


def entries_of(session: Session) -> list[Entry]:
    return [entry for line in session.lines().splitlines() if (entry := msgspec.json.decode(line, type=Line).entry)]


@pytest.mark.parametrize(
    ("target", "tapped"),
    [
        (Target(NAMESPACE), {"shop/client-0", "shop/web-6d4f-x", "data/other"}),
        (Target(NAMESPACE, "shop"), {"shop/client-0", "shop/web-6d4f-x"}),
        (Target(POD, "shop", "client-0"), {"shop/client-0"}),
        (Target("deployment", "shop", "web"), {"shop/web-6d4f-x"}),
        (Target(SERVICE, "shop", "web"), {"shop/web-6d4f-x"}),
        (Target("deployment", "data", "web"), set()),
        (Target("statefulset", "shop", "web"), set()),
    ],
)
def test_what_is_pointed_at_switches_on_its_pods_alone(mesh: Mesh, target: Target, tapped: set[str]) -> None:
    taps = Taps(mesh.world, lambda: 0.0)
    keys = ("shop/client-0", "shop/web-6d4f-x", "data/other")
    assert not any(taps.level(facts(mesh, key)) for key in keys)
    session = taps.open(Selection(target), lambda: None)
    assert {key for key in keys if taps.level(facts(mesh, key)) == 1_000_000} == tapped
    taps.close(session)
    assert not any(taps.level(facts(mesh, key)) for key in keys)


def test_opening_and_closing_say_that_something_changed_and_closing_twice_is_closing_once(mesh: Mesh) -> None:
    taps, changes = Taps(mesh.world, lambda: 0.0), []
    taps.changed = lambda: changes.append(len(taps))
    session = taps.open(SHOP, lambda: None)
    taps.close(session)
    taps.close(session)
    assert changes == [1, 0]


def test_there_is_an_end_to_how_many_may_tap(mesh: Mesh) -> None:
    taps = Taps(mesh.world, lambda: 0.0)
    sessions = [taps.open(SHOP, lambda: None) for _ in range(MAX_SESSIONS)]
    with pytest.raises(TapLimitError):
        taps.open(SHOP, lambda: None)
    taps.close(sessions[0])
    taps.open(SHOP, lambda: None)


def test_an_entry_is_of_the_pod_that_told_it_and_has_the_names_of_both_ends(mesh: Mesh) -> None:
    entry = entry_of(RECORD, facts(mesh, "shop/client-0"), mesh.world)
    assert entry.time == "2025-11-26T09:30:00.123456Z"
    assert entry.source == Place("10.0.0.1:40000", "shop/pod/client-0", "shop/client-0")
    assert entry.destination == Place("10.96.0.10:80", "shop/deployment/web", "shop/web-6d4f-x", "shop/web:80")
    assert (entry.tls, entry.tls_version, entry.reason, entry.latency_ms) == (True, "TLSv1.2", "", 1.5)
    # A record cannot name its reporter: the same words from another pod are another pod's.
    assert entry_of(RECORD, facts(mesh, "data/other"), mesh.world).source.pod == "data/other"
    inbound = dataclasses.replace(RECORD, outbound=False, local="10.0.0.2:15108", upstream="10.0.0.2:8080")
    seen = entry_of(inbound, facts(mesh, "shop/web-6d4f-x"), mesh.world)
    assert (seen.source.pod, seen.destination.address) == ("shop/client-0", "10.0.0.2:8080")


@pytest.mark.parametrize(
    ("case", "changes", "reason"),
    [
        ("what the endpoint says", {"reason": "skipped_port"}, "skipped_port"),
        ("a Service left to kube-proxy", {"local": "10.96.0.11:80", "cluster": "passthrough"}, "unsupported_service"),
        ("a Service of nobody meshed", {"local": "10.96.0.12:80", "cluster": "passthrough"}, "not_meshed"),
        ("a pod without a proxy", {"local": "10.0.0.3:80", "cluster": "passthrough"}, "not_meshed"),
        ("one of our own ports", {"local": "10.0.0.2:15120", "cluster": "passthrough"}, "skipped_port"),
        ("a port that nobody declares", {"local": "10.0.0.2:4444", "cluster": "passthrough"}, "out_of_reach"),
        (
            "a declared port of a meshed pod",
            {"local": "10.0.0.2:8080", "cluster": "passthrough"},
            "discovery_unavailable",
        ),
        ("somewhere else", {"local": "192.0.2.1:443", "cluster": "passthrough"}, "external"),
        ("before it was configured", {"local": "10.96.0.10:80", "cluster": "passthrough"}, "discovery_unavailable"),
        ("nothing was dialled", {"upstream": ""}, ""),
        ("from outside", {"outbound": False, "source": "192.0.2.1:1"}, "external"),
        ("from a pod without a proxy", {"outbound": False, "source": "10.0.0.3:1"}, "not_meshed"),
        ("from a meshed pod", {"outbound": False, "source": "10.0.0.1:1"}, "tls_failed"),
        ("from one without redirect", {"outbound": False, "source": "10.0.0.5:1"}, "no_redirect"),
        ("a Service whose port is skipped", {"local": "10.96.0.13:80", "cluster": "passthrough"}, "skipped_port"),
        ("a Service left to kube-proxy, unmeshed", {"local": "10.96.0.14:80", "cluster": "passthrough"}, "not_meshed"),
    ],
)
def test_plaintext_has_a_reason(mesh: Mesh, case: str, changes: dict[str, object], reason: str) -> None:
    record = dataclasses.replace(RECORD, tls="", peer="", **changes)
    entry = entry_of(record, facts(mesh, "shop/client-0"), mesh.world)
    assert (entry.tls, entry.reason) == (False, reason), case


def test_a_destination_beyond_the_pods_reach_is_said_to_be_so(mesh: Mesh) -> None:
    mesh.put(namespace("shop", reach="data"))
    record = dataclasses.replace(RECORD, tls="", cluster="passthrough")
    assert entry_of(record, facts(mesh, "shop/client-0"), mesh.world).reason == "out_of_reach"


ENTRY = Entry(
    time="t",
    direction="outbound",
    protocol="HTTP/1.1",
    reporter="shop/client-0",
    source=Place("10.0.0.1:1"),
    destination=Place("10.96.0.10:80", "shop/deployment/web", "shop/web-1", "shop/web:80"),
    tls=True,
    method="GET",
    authority="web:80",
    path="/cart/1",
)


@pytest.mark.parametrize(
    ("filters", "passed"),
    [
        ({}, True),
        ({"tls": True}, True),
        ({"tls": False}, False),
        ({"method": "get"}, True),
        ({"method": "POST"}, False),
        ({"path": "/cart"}, True),
        ({"path": "/pay"}, False),
        ({"authority": "WEB"}, True),
        ({"authority": "web:80"}, True),
        ({"authority": "we"}, False),
        ({"to": Target("deployment", "shop", "web")}, True),
        ({"to": Target("deployment", "data", "web")}, False),
        ({"to": Target(SERVICE, "shop", "web")}, True),
        ({"to": Target(SERVICE, "shop", "we")}, False),
        ({"to": Target(POD, "shop", "web-1")}, True),
        ({"to": Target(NAMESPACE, "shop")}, True),
        ({"to": Target(NAMESPACE, "data")}, False),
        ({"to": Target(ADDRESS, name="10.96.0.10")}, True),
        ({"to": Target(ADDRESS, name="10.96.0.1")}, False),
    ],
)
def test_filters_let_pass_what_was_asked_for(filters: dict[str, object], passed: bool) -> None:
    assert passes(Selection(Target(NAMESPACE, "shop"), **filters), ENTRY) is passed


def test_more_than_was_asked_for_in_a_second_is_skipped_and_said(mesh: Mesh) -> None:
    now = 0.0
    taps, woken = Taps(mesh.world, lambda: now), []
    session = taps.open(Selection(Target(NAMESPACE, "shop"), max_rps=10), lambda: woken.append(1))
    taps.take(facts(mesh, "shop/client-0"), [RECORD] * 50)
    assert len(entries_of(session)) == 10
    assert msgspec.json.decode(session.news(3)) == {"proxies": 3, "skipped": 40}
    assert msgspec.json.decode(session.news(3)) == {"proxies": 3}
    now = 0.5
    taps.take(facts(mesh, "shop/client-0"), [RECORD] * 50)
    assert len(entries_of(session)) == 5
    assert woken


def test_a_session_that_is_not_read_keeps_the_newest_and_says_what_it_lost(mesh: Mesh) -> None:
    taps = Taps(mesh.world, lambda: 0.0)
    session = taps.open(SHOP, lambda: None)
    records = [dataclasses.replace(RECORD, path=f"/{number}") for number in range(MAX_WAITING + 5)]
    taps.take(facts(mesh, "shop/client-0"), records)
    taps.lost(facts(mesh, "shop/client-0"), 100)
    taps.lost(facts(mesh, "data/other"), 1000)
    kept = entries_of(session)
    assert (len(kept), kept[0].path, kept[-1].path) == (MAX_WAITING, "/5", f"/{MAX_WAITING + 4}")
    assert msgspec.json.decode(session.news(1)) == {"proxies": 1, "lost": 105}


@pytest.mark.parametrize(
    ("case", "selection"),
    [
        ("a workload without a namespace", Selection(Target("deployment", "", "web"))),
        ("a pod without a name", Selection(Target(POD, "shop"))),
        ("an address", Selection(Target(ADDRESS, name="10.0.0.1"))),
        ("a name of a novel's length", Selection(Target(POD, "shop", "a" * 254))),
        ("a path without end", Selection(Target(NAMESPACE, "shop"), path="/" * 5000)),
        ("less than nothing", Selection(Target(NAMESPACE, "shop"), max_rps=-1)),
        ("no number", Selection(Target(NAMESPACE, "shop"), max_rps=float("nan"))),
        ("to a Service of no namespace", Selection(Target(NAMESPACE, "shop"), to=Target(SERVICE, "", "web"))),
    ],
)
def test_a_selection_that_makes_no_sense_is_refused(case: str, selection: Selection) -> None:
    assert faults(selection), case
    assert not faults(SHOP)
