"""What is meshed, what is behind a Service, and how it follows kube-proxy."""

from __future__ import annotations

import pytest

from discovery.inbound import reachable_ports
from discovery.kinds import ServicePort, SlicePort
from discovery.protocols import Protocol
from discovery.snapshot import Endpoint, PortPlan, plan_pod, plan_service, pod_facts
from discovery.unsupported import Unsupported
from discovery.world import World
from mesh import names
from mesh.pod import Pod
from mesh.reasons import Plaintext
from tests.discovery.cluster import put
from tests.discovery.objects import CONFIG, endpoint, endpoint_slice, identity, namespace, pod, service


def facts(pod_: Pod, **namespace_settings: str):
    found = pod_facts(pod_, namespace(**namespace_settings).metadata, CONFIG)
    assert found is not None
    return found


def addresses(*pods: Pod):
    return {address: f for p in pods if (f := pod_facts(p, None, CONFIG)) for address in f.addresses}


def test_a_pod_is_meshed_when_it_carries_our_label_and_our_sidecar_runs() -> None:
    assert facts(pod("a", "10.0.0.1")).meshed
    assert not facts(pod("a", "10.0.0.1", meshed=False)).meshed
    assert not facts(pod("label without sidecar", "10.0.0.1", running=False)).meshed
    assert not facts(pod("sidecar without label", "10.0.0.1", meshed=False, running=True)).meshed
    other = pod("a", "10.0.0.1", meshed=False, running=True, labels={names.MESH_LABEL: "another-control-plane"})
    assert not facts(other).meshed


@pytest.mark.parametrize("gone", [{"phase": "Succeeded"}, {"phase": "Failed"}, {"host_network": True}])
def test_ended_pods_and_pods_on_the_nodes_network_are_nobody(gone: dict[str, str]) -> None:
    assert pod_facts(pod("a", "10.0.0.1", **gone), None, CONFIG) is None


def test_strict_and_opaque_come_from_the_pod_or_its_namespace() -> None:
    assert facts(pod("a", "10.0.0.1", labels={names.MODE_LABEL: "strict"})).strict
    assert not facts(pod("a", "10.0.0.1")).strict
    assert 9000 in facts(pod("a", "10.0.0.1"), opaque_ports="9000").opaque
    own = pod("a", "10.0.0.1", annotations={f"{names.SETTING_PREFIX}opaque-ports": "9001"})
    assert 9000 not in facts(own, opaque_ports="9000").opaque


def test_a_service_has_a_plan_for_each_port_and_family() -> None:
    found = plan_service(
        service("web", "10.96.0.1", "fd00::1"),
        [endpoint_slice("web", "10.0.0.1"), endpoint_slice("web", "fd00::11", suffix="2")],
        addresses(pod("a", "10.0.0.1", "fd00::11", service_account="web")),
        CONFIG,
    )
    assert [(p.name, p.address, [(e.address, e.identity) for e in p.endpoints]) for p in found.ports] == [
        ("shop/web:80", "10.96.0.1", [("10.0.0.1", identity("web"))]),
        ("shop/web:80/v6", "fd00::1", [("fd00::11", identity("web"))]),
    ]


def test_named_ports_may_have_another_number_in_each_slice_and_other_protocols_are_left_out() -> None:
    found = plan_service(
        service("web", "10.96.0.1", ports=(ServicePort(port=80, name="http"), ServicePort(port=53, protocol="UDP"))),
        [
            endpoint_slice("web", "10.0.0.1", ports=(SlicePort(name="http", port=8080),)),
            endpoint_slice(
                "web", "10.0.0.2", suffix="2", ports=(SlicePort(name="http", port=9090), SlicePort(name="x", port=1))
            ),
        ],
        {},
        CONFIG,
    )
    (plan,) = found.ports
    assert plan.endpoints == (
        Endpoint("10.0.0.1", 8080, reason=Plaintext.NOT_MESHED),
        Endpoint("10.0.0.2", 9090, reason=Plaintext.NOT_MESHED),
    )


@pytest.mark.parametrize(
    ("endpoints", "used"),
    [
        pytest.param([endpoint("10.0.0.1"), endpoint("10.0.0.2", ready=False)], ["10.0.0.1"], id="absent means ready"),
        pytest.param(
            [endpoint("10.0.0.1", ready=True), endpoint("10.0.0.2", ready=False, serving=True, terminating=True)],
            ["10.0.0.1"],
            id="a terminating one is left alone while another is ready",
        ),
        pytest.param(
            [endpoint("10.0.0.1", ready=False, serving=True, terminating=True), endpoint("10.0.0.2", ready=False)],
            ["10.0.0.1"],
            id="the last ones serve while they terminate",
        ),
        pytest.param([endpoint("10.0.0.1", ready=False, serving=False, terminating=True)], [], id="none serves"),
        pytest.param(
            [endpoint("10.0.0.1", ready=True, serving=False)], ["10.0.0.1"], id="publishNotReadyAddresses says ready"
        ),
        pytest.param([endpoint("10.0.0.1"), endpoint("10.0.0.1")], ["10.0.0.1"], id="an address twice is one"),
    ],
)  # fmt: skip
def test_the_endpoints_are_those_of_kube_proxy(endpoints: list, used: list[str]) -> None:
    found = plan_service(service("web", "10.96.0.1"), [endpoint_slice("web", *endpoints)], {}, CONFIG)
    assert [e.address for e in found.ports[0].endpoints] == used


def test_readiness_is_decided_in_each_family_alone() -> None:
    slices = [
        endpoint_slice("web", "10.0.0.1"),
        endpoint_slice("web", endpoint("fd00::11", ready=False, serving=True, terminating=True), suffix="2"),
    ]
    found = plan_service(service("web", "10.96.0.1", "fd00::1"), slices, {}, CONFIG)
    assert [[e.address for e in plan.endpoints] for plan in found.ports] == [["10.0.0.1"], ["fd00::11"]]


@pytest.mark.parametrize(
    ("spec", "annotations", "reason"),
    [
        ({"session_affinity": "ClientIP"}, None, Unsupported.SESSION_AFFINITY),
        ({"internal_traffic_policy": "Local"}, None, Unsupported.INTERNAL_TRAFFIC_POLICY_LOCAL),
        ({"traffic_distribution": "PreferClose"}, None, Unsupported.TRAFFIC_DISTRIBUTION),
        ({}, {"service.kubernetes.io/topology-mode": "Auto"}, Unsupported.TRAFFIC_DISTRIBUTION),
        ({"session_affinity": "None", "internal_traffic_policy": "Cluster"}, None, None),
    ],
)
def test_what_we_do_not_do_gets_no_listener_and_a_reason(
    spec: dict[str, str], annotations: dict[str, str] | None, reason: Unsupported | None
) -> None:
    unit = service("web", "10.96.0.1", annotations=annotations, **spec)
    found = plan_service(unit, [endpoint_slice("web", "10.0.0.1")], addresses(pod("a", "10.0.0.1")), CONFIG)
    assert found.unsupported is reason
    assert bool(found.ports) is (reason is None)
    # The pods stay reachable by mutual TLS at their own addresses.
    assert found.targets


def test_a_hand_written_slice_does_not_decide_whose_certificate_is_due() -> None:
    found = plan_service(
        service("victim", "10.96.0.1"), [endpoint_slice("victim", "10.0.0.9")],
        addresses(pod("attacker", "10.0.0.9", service_account="attacker")), CONFIG,
    )  # fmt: skip
    assert found.ports[0].identities == {identity("attacker")}


def test_ports_of_ours_and_skipped_ports_are_plaintext_with_their_reason() -> None:
    skipping = pod("a", "10.0.0.1", annotations={f"{names.SETTING_PREFIX}skip-inbound-ports": "8080"})
    found = plan_service(service("web", "10.96.0.1"), [endpoint_slice("web", "10.0.0.1")], addresses(skipping), CONFIG)
    assert found.ports[0].endpoints[0].reason is Plaintext.SKIPPED_PORT
    ours = endpoint_slice("web", "10.0.0.1", ports=(SlicePort(port=15120),))
    found = plan_service(service("web", "10.96.0.1"), [ours], addresses(pod("a", "10.0.0.1")), CONFIG)
    assert found.ports[0].endpoints[0].reason is Plaintext.SKIPPED_PORT


def test_a_hand_written_slice_of_another_namespace_neither_opens_a_port_nor_says_what_it_speaks() -> None:
    world = World(CONFIG)
    put(
        world,
        pod("db-0", "10.0.0.1", service_account="db", ports=((5000, "odd"),)),
        service("evil", "10.96.0.1", namespace="evil", ports=(
            ServicePort(port=5000, app_protocol="http"), ServicePort(port=9999, name="hidden"),
        )),
        endpoint_slice("evil", "10.0.0.1", namespace="evil", ports=(
            SlicePort(port=5000), SlicePort(name="hidden", port=9999),
        )),
    )  # fmt: skip
    found: dict[str, PortPlan] = {}
    while world.stale:
        found |= {plan.name: plan for planned in world.step(5) for plan in planned.ports}
    victim = world.pod("shop/db-0")
    assert victim
    assert world.inbound_ports(victim) == (5000,)
    assert found["pod/10.0.0.1:5000"].protocol is Protocol.TCP
    assert "pod/10.0.0.1:9999" not in found
    # Through the Service itself: what the pod declares by mutual TLS, the other port as before, without.
    name = "shop/pod/db-0"
    assert found["evil/evil:5000"].endpoints == (Endpoint("10.0.0.1", 5000, identity("db"), workload=name),)
    skipped = Endpoint("10.0.0.1", 9999, reason=Plaintext.SKIPPED_PORT, workload=name)
    assert found["evil/evil:9999"].endpoints == (skipped,)


def test_a_meshed_pods_addresses_are_planned_with_what_services_say_about_them() -> None:
    database = pod("db-0", "10.0.0.1", service_account="db", ports=(5000, (9999, "mysql")))
    headless = plan_service(
        service("db", ports=(ServicePort(port=5000, app_protocol="http"),)),
        [endpoint_slice("db", endpoint("10.0.0.1", ready=False), ports=(SlicePort(port=5000),))],
        addresses(database),
        CONFIG,
    )
    assert headless.ports == ()
    plans = plan_pod(facts(database), [("shop/db", target) for target in headless.targets])
    assert [(p.name, p.protocol, p.owners) for p in plans] == [
        ("pod/10.0.0.1:5000", Protocol.HTTP, ("*", "shop/", "shop/db")),
        ("pod/10.0.0.1:9999", Protocol.TCP, ("*", "shop/", "shop/db")),
    ]
    assert plan_pod(facts(pod("db-0", "10.0.0.1", meshed=False)), []) == ()


def test_addresses_that_no_headless_service_gives_out_are_not_for_everybody() -> None:
    server = pod("web-0", "10.0.0.1")
    found = plan_service(service("web", "10.96.0.1"), [endpoint_slice("web", "10.0.0.1")], addresses(server), CONFIG)
    assert [plan.owners for plan in found.ports] == [("*", "shop/web")]
    (plan,) = plan_pod(facts(server), [("shop/web", target) for target in found.targets])
    assert plan.owners == ("shop/", "shop/web")


def test_peers_reach_declared_ports_and_targets_of_services_and_never_ours() -> None:
    server = facts(pod("a", "10.0.0.1", ports=(8080, 15120)))
    found = plan_service(
        service("x", "10.96.0.1", ports=(ServicePort(port=1), ServicePort(port=2, name="own"))),
        [endpoint_slice("x", "10.0.0.1", ports=(SlicePort(port=9999), SlicePort(name="own", port=15150)))],
        {}, CONFIG,
    )  # fmt: skip
    assert reachable_ports(server, found.targets) == (8080, 9999)
    elsewhere = plan_service(
        service("x", "10.96.0.1"), [endpoint_slice("x", "10.0.0.2", ports=(SlicePort(port=7777),))], {}, CONFIG
    )
    assert reachable_ports(server, elsewhere.targets) == (8080,)


@pytest.mark.parametrize(
    ("port", "protocol"),
    [
        (ServicePort(port=80, app_protocol="http"), Protocol.HTTP),
        (ServicePort(port=80, app_protocol="kubernetes.io/h2c"), Protocol.HTTP),
        (ServicePort(port=80, app_protocol="GRPC"), Protocol.HTTP),
        (ServicePort(port=80, app_protocol="kubernetes.io/ws"), Protocol.WEBSOCKET),
        (ServicePort(port=443, app_protocol="https"), Protocol.TCP),
        (ServicePort(port=1, app_protocol="example.com/own"), Protocol.TCP),
        (ServicePort(port=80, name="http"), Protocol.DETECTED),
        (ServicePort(port=80, name="mysql"), Protocol.TCP),
        (ServicePort(port=80, name="tcp-metrics"), Protocol.TCP),
        (ServicePort(port=9000, name="grpc-internal"), Protocol.DETECTED),
        (ServicePort(port=80, name="mysqlish"), Protocol.TCP),
        (ServicePort(port=2003, name="graphite"), Protocol.TCP),
        (ServicePort(port=80), Protocol.DETECTED),
        (ServicePort(port=1234, target_port=8080), Protocol.DETECTED),
        (ServicePort(port=2003), Protocol.TCP),
        (ServicePort(port=3306, app_protocol="http"), Protocol.TCP),  # opaque by default
        (ServicePort(port=80, target_port=5432), Protocol.TCP),
    ],
)
def test_the_protocol_is_declared_or_detected(port: ServicePort, protocol: Protocol) -> None:
    (plan,) = plan_service(service("x", "10.96.0.1", ports=(port,)), [], {}, CONFIG).ports
    assert plan.protocol is protocol


def test_opaque_ports_of_a_service_come_before_its_namespaces_and_the_charts() -> None:
    key = f"{names.SETTING_PREFIX}opaque-ports"
    unit = service("x", "10.96.0.1", ports=(ServicePort(port=3306, name="http"),), annotations={key: "80"})
    assert plan_service(unit, [], {}, CONFIG).ports[0].protocol is Protocol.DETECTED
    plain = service("x", "10.96.0.1", ports=(ServicePort(port=81),))
    of_namespace = namespace(opaque_ports="80-82").metadata
    assert plan_service(plain, [], {}, CONFIG, of_namespace).ports[0].protocol is Protocol.TCP
