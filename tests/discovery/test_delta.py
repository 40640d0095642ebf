"""The delta protocol against a client model: whatever happens, the client ends with exactly the present state."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.api import cluster_pb2, discovery_pb2, endpoint_pb2, listener_pb2
from discovery.delta import Subscriber
from discovery.kinds import EndpointSlice, Service
from discovery.own import own_resources
from discovery.pins import LINGER_S
from discovery.requests import Request
from discovery.resources import CLUSTER, ENDPOINTS, LISTENER, MAX_ANSWER_BYTES, WILDCARD_TYPES, Resource, parted
from discovery.scope import Reach
from discovery.tls import Mode
from discovery.wire import field
from mesh.pod import Pod
from tests.discovery.cluster import Mesh
from tests.discovery.objects import endpoint_slice, pod, service

TYPES = (CLUSTER, ENDPOINTS, LISTENER)


class Client:
    """Envoy as far as the protocol goes: subscribes to the endpoints of the clusters it is told, checks the order."""

    def __init__(self, mesh: Mesh, mode: Mode = Mode.OPTIONAL, reach: Reach | None = None) -> None:
        self.mesh = mesh
        self.view = mesh.catalog.view(mode, reach or Reach())
        self.held: dict[str, dict[str, str]] = {type_url: {} for type_url in TYPES}
        self.bytes: dict[tuple[str, str], bytes] = {}
        self.warm: set[str] = set()
        self.connect()

    def connect(self) -> None:
        """A new stream that brings along what the client has."""
        self.subscriber = Subscriber(self.view, own_resources(()))
        for type_url in (CLUSTER, LISTENER, ENDPOINTS):
            self.ask(type_url, (), self.held[type_url])

    def ask(self, type_url: str, names: Iterable[str], versions: dict[str, str] | None = None) -> None:
        asked = tuple(names) if type_url not in WILDCARD_TYPES else ()
        if type_url == ENDPOINTS and versions is not None:
            asked = tuple(self.held[CLUSTER])
        self.take(self.subscriber.on_request(Request(type_url, asked, (), dict(versions or {})), self.mesh.now))

    def take(self, messages: list[bytes]) -> None:
        for message in messages:
            answer = discovery_pb2.DeltaDiscoveryResponse.FromString(message)
            held = self.held[answer.type_url]
            for name in answer.removed_resources:
                held.pop(name, None)
                if answer.type_url == CLUSTER:
                    self.warm.discard(name)
                    assert name not in self.held[LISTENER], "a listener lost its cluster"
            fresh = [entry.name for entry in answer.resources if entry.name not in held]
            for entry in answer.resources:
                held[entry.name] = entry.version
                self.bytes[answer.type_url, entry.name] = entry.resource.value
                if answer.type_url == CLUSTER and entry.name not in fresh:
                    self.warm.discard(entry.name)
                if answer.type_url == ENDPOINTS:
                    self.warm.add(entry.name)
                if answer.type_url == LISTENER:
                    assert entry.name in self.warm, "a listener came before its cluster was usable"
            if answer.type_url == CLUSTER and fresh:
                self.ask(ENDPOINTS, fresh)

    def hear(self, changes: list) -> None:
        self.take(self.subscriber.on_change(self.view.take(changes), self.mesh.now))

    def wait(self) -> None:
        self.take(self.subscriber.on_time(self.mesh.now))


def current(mesh: Mesh, client: Client) -> dict[str, dict[str, str]]:
    return {
        type_url: {
            name: entry.version for name in client.view.names(type_url) if (entry := client.view.get(type_url, name))
        }
        for type_url in TYPES
    }


PODS = [f"10.0.0.{n}" for n in range(1, 5)]
SERVICES = ["a", "b", "c"]
HEADLESS = "c"
REACHES = [Reach(), Reach(home="shop"), Reach(home="elsewhere"), Reach(frozenset({"shop/a"}))]

change = st.one_of(
    st.tuples(st.just("pod"), st.sampled_from(range(4)), st.booleans(), st.sampled_from(["x", "y"])),
    st.tuples(st.just("no pod"), st.sampled_from(range(4))),
    st.tuples(st.just("slice"), st.sampled_from(SERVICES), st.sets(st.sampled_from(range(4)))),
    st.tuples(st.just("service"), st.sampled_from(SERVICES)),
    st.tuples(st.just("no service"), st.sampled_from(SERVICES)),
    st.tuples(st.just("time"), st.sampled_from([0.5, 2.0, 11.0])),
    st.tuples(st.just("reconnect")),
)


def apply(mesh: Mesh, client: Client, step: tuple) -> None:
    match step:
        case ("pod", number, meshed, account):
            client.hear(mesh.put(pod(f"p{number}", PODS[number], meshed=meshed, service_account=account)))
        case ("no pod", number):
            mesh.world.set_pod(f"shop/p{number}", None)
            client.hear(mesh.work())
        case ("slice", name, numbers):
            client.hear(mesh.put(endpoint_slice(name, *(PODS[n] for n in sorted(numbers)))))
        case ("service", name):
            addresses = [] if name == HEADLESS else [f"10.96.0.{SERVICES.index(name) + 1}"]
            client.hear(mesh.put(service(name, *addresses)))
        case ("no service", name):
            mesh.world.set_service(f"shop/{name}", None)
            client.hear(mesh.work())
        case ("time", seconds):
            client.hear(mesh.later(seconds))
            client.wait()
        case ("reconnect",):
            client.connect()


@settings(max_examples=150, deadline=None)
@given(st.lists(change, max_size=25), st.sampled_from(REACHES), st.sampled_from(Mode))
def test_deltas_applied_are_the_whole_state(steps: list[tuple], reach: Reach, mode: Mode) -> None:
    mesh = Mesh()
    client = Client(mesh, mode, reach)
    for step in steps:
        apply(mesh, client, step)
        assert_nothing_dangles(client)
    # Whatever lingers is gone by then.
    client.hear(mesh.later(LINGER_S + 1))
    mesh.now += LINGER_S + 1
    client.wait()
    assert client.held == current(mesh, client)
    assert current(mesh, client) == current(mesh, Client(mesh, mode, reach))


def assert_nothing_dangles(client: Client) -> None:
    """Every listener's cluster is there, every cluster has endpoints, and every meshed endpoint's name is pinned."""
    for name in client.held[LISTENER]:
        listener = listener_pb2.Listener.FromString(client.bytes[LISTENER, name])
        assert listener.name in client.held[CLUSTER]
        assert not listener.bind_to_port.value
    for name in client.held[CLUSTER]:
        assert name in client.held[ENDPOINTS]
        cluster = cluster_pb2.Cluster.FromString(client.bytes[CLUSTER, name])
        assert cluster.transport_socket_matches
        assignment = endpoint_pb2.ClusterLoadAssignment.FromString(client.bytes[ENDPOINTS, name])
        assert assignment.cluster_name == name


def meshed_shop() -> Mesh:
    mesh = Mesh()
    mesh.put(pod("p1", "10.0.0.1", service_account="x"), service("a", "10.96.0.1"), endpoint_slice("a", "10.0.0.1"))
    return mesh


def test_a_removed_cluster_outlives_its_listener_and_a_returning_one_is_not_removed() -> None:
    mesh = meshed_shop()
    client = Client(mesh)
    mesh.world.set_service("shop/a", None)
    client.hear(mesh.work())
    assert "shop/a:80" not in client.held[LISTENER]
    assert "shop/a:80" in client.held[CLUSTER]
    mesh.now += LINGER_S / 2
    client.hear(mesh.put(service("a", "10.96.0.1")))
    mesh.now += LINGER_S
    client.wait()
    assert "shop/a:80" in client.held[CLUSTER]


def test_a_restarted_server_that_does_not_know_a_cluster_removes_it_only_after_its_listener() -> None:
    client = Client(meshed_shop())
    client.mesh = Mesh()
    client.view = client.mesh.catalog.view(Mode.OPTIONAL)
    client.connect()
    assert client.held[LISTENER] == {}
    assert "shop/a:80" in client.held[CLUSTER]
    client.mesh.now += LINGER_S + 1
    client.wait()
    assert client.held[CLUSTER] == client.held[ENDPOINTS] == {}


def test_a_changed_cluster_is_followed_by_its_endpoints_even_if_they_did_not_change() -> None:
    mesh = meshed_shop()
    client = Client(mesh)
    mesh.put(pod("p2", "10.0.0.2", service_account="y"))
    changes = mesh.put(endpoint_slice("a", "10.0.0.1", "10.0.0.2"))
    messages = client.subscriber.on_change(client.view.take(changes), mesh.now)
    types = [discovery_pb2.DeltaDiscoveryResponse.FromString(m).type_url for m in messages]
    assert types[:2] == [CLUSTER, ENDPOINTS]


def test_an_identity_is_accepted_before_its_endpoints_are_sent_and_after_they_are_gone() -> None:
    mesh = meshed_shop()
    client = Client(mesh)

    def endpoints() -> bytes:
        return client.bytes[ENDPOINTS, "shop/a:80"]

    def accepted() -> bytes:
        return client.bytes[CLUSTER, "shop/a:80"]

    client.hear(mesh.put(pod("p2", "10.0.0.2", service_account="y"), endpoint_slice("a", "10.0.0.1", "10.0.0.2")))
    assert b"/sa/y" in accepted()
    assert b"10.0.0.2" not in endpoints()
    client.hear(mesh.later(2))
    assert b"10.0.0.2" in endpoints()
    client.hear(mesh.put(endpoint_slice("a", "10.0.0.2")))
    assert b"10.0.0.1" not in endpoints()
    assert b"/sa/x" in accepted()
    client.hear(mesh.later(LINGER_S + 1))
    assert b"/sa/x" not in accepted()
    client.hear(mesh.put(endpoint_slice("a")))
    client.hear(mesh.later(LINGER_S + 1))
    assert b"/sa/y" in accepted(), "a cluster without a pin would accept anybody"


def test_equal_clusters_have_equal_versions_in_every_replica() -> None:
    one, two = meshed_shop(), meshed_shop()
    assert current(one, Client(one)) == current(two, Client(two))


def test_a_service_of_which_nothing_is_meshed_costs_nothing_and_one_that_was_stays() -> None:
    mesh = Mesh()
    client = Client(mesh)
    plain = pod("p1", "10.0.0.1", meshed=False, service_account="x")
    client.hear(mesh.put(plain, service("a", "10.96.0.1"), endpoint_slice("a", "10.0.0.1")))
    assert client.held == {CLUSTER: {}, ENDPOINTS: {}, LISTENER: {}}
    client.hear(mesh.put(pod("p1", "10.0.0.1", service_account="x")))
    assert "shop/a:80" in client.held[LISTENER]
    listener = client.held[LISTENER]["shop/a:80"]
    client.hear(mesh.put(plain))
    assert client.held[LISTENER]["shop/a:80"] == listener


def test_strict_has_no_plaintext_way_out_and_optional_has_one_for_peers_that_allow_it() -> None:
    mesh = meshed_shop()
    assignments = {
        mode: endpoint_pb2.ClusterLoadAssignment.FromString(Client(mesh, mode).bytes[ENDPOINTS, "shop/a:80"])
        for mode in Mode
    }
    assert [group.priority for group in assignments[Mode.STRICT].endpoints] == [0]
    assert [group.priority for group in assignments[Mode.OPTIONAL].endpoints] == [0, 1]
    strict_peer = pod("p1", "10.0.0.1", service_account="x", labels={"autotls.io/tls": "strict"})
    mesh.put(strict_peer)
    again = endpoint_pb2.ClusterLoadAssignment.FromString(Client(mesh).bytes[ENDPOINTS, "shop/a:80"])
    assert [group.priority for group in again.endpoints] == [0]


def test_a_proxy_without_a_reach_is_sent_services_named_addresses_and_the_pods_of_its_namespace() -> None:
    mesh = Mesh()
    clients = {home: Client(mesh, reach=Reach(home=home)) for home in ("shop", "elsewhere")}

    def put(*objects: Pod | Service | EndpointSlice) -> None:
        changes = mesh.put(*objects)
        for client in clients.values():
            client.hear(changes)

    put(pod("web-0", "10.0.0.1"), service("web", "10.96.0.1"), endpoint_slice("web", "10.0.0.1"))
    assert clients["shop"].held[LISTENER].keys() == {"shop/web:80", "pod/10.0.0.1:8080"}
    assert clients["elsewhere"].held[LISTENER].keys() == {"shop/web:80"}
    # From the moment that DNS gives its address out it is for everybody, and nothing changes for who knew it.
    before = dict(clients["shop"].held[LISTENER])
    put(service("peers"), endpoint_slice("peers", "10.0.0.1"))
    assert clients["elsewhere"].held[LISTENER].keys() == {"shop/web:80", "pod/10.0.0.1:8080"}
    assert clients["shop"].held[LISTENER] == before
    # It stays that way, so that an address between two slices keeps its connections.
    put(endpoint_slice("peers"))
    assert clients["elsewhere"].held[LISTENER].keys() == {"shop/web:80", "pod/10.0.0.1:8080"}


class Large:
    """A view of five clusters of 100 kB."""

    def __init__(self) -> None:
        self._clusters = {
            name: Resource(CLUSTER, name, "1", field(2, discovery_pb2.Resource(name=name).SerializeToString() + pad))
            for name in ("a", "b", "c", "d", "e")
            for pad in (field(99, bytes(100_000)),)
        }

    def get(self, type_url: str, name: str) -> Resource | None:
        return self._clusters.get(name) if type_url == CLUSTER else None

    def names(self, type_url: str) -> Iterable[str]:
        return self._clusters if type_url == CLUSTER else ()


def test_what_is_too_large_for_one_message_comes_in_several() -> None:
    messages = Subscriber(Large()).on_request(Request(CLUSTER, (), (), {}), 0.0)
    answers = [discovery_pb2.DeltaDiscoveryResponse.FromString(message) for message in messages]
    assert [len(answer.resources) for answer in answers] == [2, 2, 1]
    assert {entry.name for answer in answers for entry in answer.resources} == set(Large().names(CLUSTER))
    assert len({answer.nonce for answer in answers}) == len(answers)
    assert all(len(message) < MAX_ANSWER_BYTES + 1000 for message in messages)


def test_one_that_is_too_large_alone_is_sent_all_the_same() -> None:
    big, small = Resource(CLUSTER, "big", "1", bytes(MAX_ANSWER_BYTES + 1)), Resource(CLUSTER, "small", "1", b"x")
    assert parted([big, small, small]) == [[big], [small, small]]
    assert parted([]) == [[]]
