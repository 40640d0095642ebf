"""A NetworkPolicy that forgets 15108: traffic flows on in plaintext, and the reason is counted.

The CNI of this cluster enforces no NetworkPolicy, so nftables in the pod's namespace drops what such a policy would:
new connections to 15108. Other than a policy it is taken away again, and then it is mutual TLS by itself.
"""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from mesh import names
from mesh.reasons import Plaintext
from telemetry.reasons import Attempts, cluster_label, refine
from tests.cluster.kubectl import OPTED_IN, Object, Space, a_pod, eventually, space
from tests.cluster.machine import Machine
from tests.cluster.mutual import COUNTER
from tests.cluster.plane import Plane, an_account
from tests.cluster.plane import a_pod as a_server
from tests.cluster.results import Table
from tests.fixtures_cluster import RunningCluster

pytestmark = pytest.mark.cluster

POLICY: Final = (
    "table inet forgetful { chain in { type filter hook input priority 0; tcp dport 15108 ct state new drop; }; }"
)
FORGOTTEN: Final = Table(
    "A NetworkPolicy that forgets 15108 (simulated: nftables in the pod's namespace)",
    (("HTTP/1.1", "ClusterIP"), ("bytes", "ClusterIP"), ("autotls check", "-")),
)
REQUESTS: Final = 6


@dataclass(frozen=True, slots=True)
class Shop:
    """A meshed server that nobody has dialled yet, and a meshed client."""

    home: Space
    machine: Machine

    def counted(self, name: str = COUNTER, **labels: str) -> float:
        address = self.home.get("pod", "client")["status"]["podIP"]
        return self.machine.metric(address, names.STATUS_PORT, name, **labels)

    def cause(self, svc: str) -> Plaintext:
        """Why, as `stat` and `prove` read it from the same counters."""
        counts = {
            what: self.counted(f"envoy_cluster_upstream_cx_connect_{name}", envoy_cluster_name=cluster_label(svc))
            for what, name in (("failed", "fail"), ("timed_out", "timeout"))
        }
        assert counts["timed_out"] > 0
        return refine(Attempts(**counts))

    def ask(self, port: int) -> list[str]:
        """Who the application saw as its peer, for each of a few requests on connections of their own."""
        command = f"for i in $(seq {REQUESTS}); do curl -sS --fail --max-time 120 http://server:{port}/; done"
        answers = self.home.exec("client", "sh", "-ec", command, container="app").splitlines()
        return [json.loads(answer)["peer"] for answer in answers]


@pytest.fixture(scope="module")
def shop(cluster: RunningCluster) -> Iterator[Shop]:
    with space(cluster, "policy", labels=OPTED_IN) as home:
        accounts = ("server", "client")
        home.apply(*map(an_account, accounts))
        for account in accounts:
            secret = names.identity_secret_name(account)
            eventually(lambda secret=secret: home.find("secret", secret), f"Secret {secret}")
        ports = [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "raw", "port": 81, "targetPort": 8080}]
        service = {"selector": {"app": "server"}, "ports": ports}
        home.apply(
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "server"}, "spec": service},
            a_server(cluster, "server", "server", labels={"app": "server"}),
            a_pod(cluster, "client", spec={"serviceAccountName": "client"}),
        )
        home.wait_ready("server", "client")
        yield Shop(home, Machine(cluster))


def test_check_names_the_policy_the_pod_and_the_port(shop: Shop) -> None:
    spec = {"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [{"ports": [{"port": 8080}]}]}
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "forgetful"}}
    shop.home.apply({**policy, "spec": spec})
    found = Plane(shop.machine.cluster).findings("network-policies")
    mine = [str(each) for each in found if f"{shop.home.name}/forgetful" in str(each)]
    assert len(mine) == 1, found
    assert f"{shop.home.name}/server" in mine[0]
    assert str(names.INBOUND_TLS_PORT) in mine[0]
    outcome = "says which policy forbids 15108 to which pod"
    FORGOTTEN.record("autotls check", "-", outcome, "a real NetworkPolicy object, check `network-policies`")
    shop.home.kubectl("delete", "networkpolicy", "forgetful")


def nft(shop: Shop, pod: Object, rules: str) -> None:
    network = f"--net=/proc/{shop.machine.process_of(pod, 'app')}/ns/net"
    done = subprocess.run(["nsenter", network, "nft", rules], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def assert_said_aloud(shop: Shop) -> None:
    """An Event on the client's pod, and a finding of `check`; both name the server, the second its cause."""
    server = f"{shop.home.name}/pod/server"

    def told() -> list[Object]:
        found = shop.home.get("events", "--field-selector=reason=PlaintextToMeshedPeer")["items"]
        return [each for each in found if each["involvedObject"]["name"] == "client" and server in each["message"]]

    (event,) = eventually(told, "an Event on the client's pod")
    assert event["type"] == "Warning"
    plane = Plane(shop.machine.cluster)
    found = eventually(
        lambda: [each for each in plane.findings("plaintext-to-meshed") if server in each["message"]], "a finding"
    )
    assert all(Plaintext.UNREACHABLE in each["message"] and shop.home.name in each["subject"] for each in found)


def test_traffic_flows_in_plaintext_while_15108_is_dropped_and_by_tls_afterwards(shop: Shop) -> None:
    server, client = (shop.home.get("pod", name) for name in ("server", "client"))
    from_client, from_proxy = {client["status"]["podIP"]}, {server["status"]["podIP"]}
    nft(shop, server, POLICY)
    for protocol, port in (("HTTP/1.1", 80), ("bytes", 81)):
        cluster = f"{shop.home.name}/server:{port}"

        def fell_back(port: int = port, cluster: str = cluster) -> bool:
            # Every answer came; before discovery has told the client's proxy of the server they are passed through.
            assert set(shop.ask(port)) == from_client
            return shop.counted(svc=cluster, reason="tls_failed") >= REQUESTS

        eventually(fell_back, f"{REQUESTS} requests to {cluster} counted as tls_failed")
        assert shop.cause(cluster) is Plaintext.UNREACHABLE
        assert shop.counted(svc=cluster, tls="TLSv1.2") == 0
        evidence = "every request answered; the client's proxy counts `tls_failed`, and connects to 15108 that time out"
        FORGOTTEN.record(protocol, "ClusterIP", "plaintext, reason `unreachable`; TLS when it is allowed", evidence)
    assert_said_aloud(shop)
    nft(shop, server, "delete table inet forgetful")
    for port in (80, 81):
        eventually(lambda port=port: set(shop.ask(port)) == from_proxy, f"port {port} by mutual TLS")
