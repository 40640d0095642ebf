"""Plaintext is unbroken between pods with and without a sidecar, and a peer with an identity gets in by mutual TLS."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import pytest

from mesh import names
from tests.cluster.kubectl import OPTED_IN, Object, Space, eventually, is_injected, manifest, space
from tests.fixtures_cluster import RunningCluster

pytestmark = pytest.mark.cluster

INSIDE, OUTSIDE = "injected", "uninjected"


@dataclass(frozen=True, slots=True)
class Traffic:
    """A server and a client with the sidecar, the same without, and a pod that holds the first client's identity."""

    inside: Space
    outside: Space
    pods: dict[tuple[str, str], Object]

    def space_of(self, where: str) -> Space:
        return self.inside if where == INSIDE else self.outside

    def address(self, where: str) -> str:
        return self.pods[where, "server"]["status"]["podIP"]


@pytest.fixture(scope="module")
def traffic(cluster: RunningCluster) -> Iterator[Traffic]:
    with ExitStack() as stack:
        inside = stack.enter_context(space(cluster, INSIDE, labels=OPTED_IN))
        outside = stack.enter_context(space(cluster, OUTSIDE))
        inside.apply(*manifest(cluster, "traffic"))
        outside.apply(*manifest(cluster, "traffic"))
        eventually(lambda: inside.find("secret", names.identity_secret_name("client")), "the identity of client")
        inside.apply(*manifest(cluster, "holder"))
        pods = {
            (where, pod["metadata"]["name"]): pod
            for where, found in (
                (INSIDE, inside.wait_ready("server", "client", "holder")),
                (OUTSIDE, outside.wait_ready("server", "client")),
            )
            for pod in found
        }
        yield Traffic(inside, outside, pods)


def targets(traffic: Traffic, server: str) -> dict[str, str]:
    """Every name of the server that a client may use."""
    name = traffic.space_of(server).name
    return {
        "service": f"http://server.{name}.svc.cluster.local/",
        "short name": f"http://server.{name}/",
        "headless": f"http://headless.{name}.svc.cluster.local:8080/",
        "pod address": f"http://{traffic.address(server)}:8080/",
    }


def said(where: Space, *command: str) -> "subprocess.CompletedProcess[str]":
    """What a command in the client's application container says, whatever its exit code."""
    return where.run("exec", "client", "--container=app", "--", *command)


@pytest.mark.parametrize("client", [INSIDE, OUTSIDE])
@pytest.mark.parametrize("server", [INSIDE, OUTSIDE])
def test_the_server_is_reached_by_every_name_and_plaintext_keeps_the_clients_address(
    traffic: Traffic, client: str, server: str
) -> None:
    assert is_injected(traffic.pods[client, "client"]) == (client == INSIDE)
    assert is_injected(traffic.pods[server, "server"]) == (server == INSIDE)
    # Mutual TLS ends in the server's own proxy, which dials the application from the pod's own address.
    meshed = client == server == INSIDE
    peer = traffic.address(server) if meshed else traffic.pods[client, "client"]["status"]["podIP"]
    wanted = targets(traffic, server)
    command = ["curl", "--silent", "--show-error", "--fail", "--max-time", "120", *wanted.values()]
    expected = [("server", peer)] * len(wanted)
    last: list[object] = []

    def seen() -> bool:
        done = said(traffic.space_of(client), *command)
        last[:] = [done.stdout, done.stderr]
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        return done.returncode == 0 and [(each["pod"], each["peer"]) for each in answers] == expected

    # DNS has to know the names, and discovery has to have told the client's proxy.
    eventually(seen, lambda: f"{expected}, last {last}")


@pytest.mark.parametrize("client", [INSIDE, OUTSIDE])
@pytest.mark.parametrize("server", [INSIDE, OUTSIDE])
def test_server_that_speaks_first_is_heard(traffic: Traffic, client: str, server: str) -> None:
    # The second container of the server may listen later than the first, for which it is Ready.
    command = ("nc", "-w", "120", traffic.address(server), "3306")
    eventually(
        lambda: said(traffic.space_of(client), *command).stdout == "5.7 ready\n",
        lambda: f"the greeting: {said(traffic.space_of(client), *command)}",
    )


def test_the_api_server_answers_an_injected_pod(traffic: Traffic) -> None:
    """Outside of the mesh and behind TLS of its own: the pod's own connections pass through the proxy unharmed."""
    url = "https://kubernetes.default.svc.cluster.local/version"
    token = "/var/run/secrets/kubernetes.io/serviceaccount"
    script = f'curl -sS --fail --cacert {token}/ca.crt -H "Authorization: Bearer $(cat {token}/token)" {url}'
    answer = json.loads(traffic.inside.exec("client", "sh", "-c", script, container="app"))
    assert answer["gitVersion"].startswith("v1.")


HTTP_REQUEST: Final = "GET /hello HTTP/1.1\\r\\nHost: server\\r\\nConnection: close\\r\\n\\r\\n"


def dial(traffic: Traffic, port: int, alpn: str, *, request: str = "", identity: bool = True) -> tuple[str, str]:
    """What the server behind 15108 answers to the holder of the client's identity, and what openssl says about it.

    openssl, because a peer need not be our proxy. It ends when the server closes the connection.
    """
    # Without -cert_chain openssl sends the leaf alone, and the server does not know our issuer by itself.
    own = "-cert /identity/tls.crt -key /identity/tls.key -cert_chain /identity/tls.crt" if identity else ""
    connect = f"{traffic.address(INSIDE)}:{names.INBOUND_TLS_PORT}"
    script = (
        f"printf '{request}' | timeout 120 openssl s_client -connect {connect} -servername {port} -alpn {alpn}"
        f" -CAfile /identity/ca.crt -verify_return_error {own} -quiet"
    )
    done = traffic.inside.run("exec", "holder", "--container=app", "--", "sh", "-c", script)
    return done.stdout, done.stderr


def wait_for_identity(traffic: Traffic) -> None:
    """The server's proxy has its files; a Secret that came after the pod takes the kubelet a minute."""
    command = ("exec", "server", f"--container={names.PROXY_CONTAINER}", "--")
    eventually(
        lambda: traffic.inside.run(*command, "test", "-s", f"{names.IDENTITY_MOUNT}/tls.key").returncode == 0,
        "the server's identity files",
    )
    # Envoy reads them a moment after they have come.
    eventually(lambda: dial(traffic, 3306, "autotls-tcp")[0] == "5.7 ready\n", "the greeting by mutual TLS")


def test_peer_with_an_identity_reaches_the_application_by_mutual_tls(traffic: Traffic) -> None:
    wait_for_identity(traffic)
    answer, told = dial(traffic, 8080, "autotls-http", request=HTTP_REQUEST)
    head, _, body = answer.partition("\n\n")
    assert head.startswith("HTTP/1.1 200 OK"), told
    found = json.loads(body)
    assert found["path"] == "/hello"
    # The application sees a connection from its own pod, and who it really was in the header.
    assert found["peer"] == traffic.address(INSIDE)
    headers = {name.lower(): value for name, value in found["headers"].items()}
    assert f"URI=spiffe://cluster.local/ns/{traffic.inside.name}/sa/client" in headers["x-forwarded-client-cert"]


def test_opaque_protocol_where_the_server_speaks_first_passes_mutual_tls(traffic: Traffic) -> None:
    wait_for_identity(traffic)
    answer, told = dial(traffic, 3306, "autotls-tcp")
    assert answer == "5.7 ready\n", told


def test_who_has_no_identity_gets_nothing_through_mutual_tls(traffic: Traffic) -> None:
    wait_for_identity(traffic)
    assert dial(traffic, 3306, "autotls-tcp")[0] == "5.7 ready\n"
    answer, told = dial(traffic, 3306, "autotls-tcp", identity=False)
    assert answer == ""
    assert "certificate required" in told.lower()


@pytest.mark.parametrize("port", [names.STATUS_PORT, names.INBOUND_TLS_PORT, 8079])
def test_ports_of_the_proxy_and_closed_ports_give_nothing(traffic: Traffic, port: int) -> None:
    wait_for_identity(traffic)
    assert dial(traffic, 8080, "autotls-tcp", request=HTTP_REQUEST)[0].startswith("HTTP/1.1 200 OK")
    answer, _ = dial(traffic, port, "autotls-tcp", request=HTTP_REQUEST)
    assert answer == ""
