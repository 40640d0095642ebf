"""Every protocol through every kind of name, in and out of the mesh: mutual TLS between meshed pods, the rest unbroken.

Mutual TLS is proven three times: both proxies count it, the application sees its own pod as the peer (its proxy
dialled it), and nothing of what was sent can be read on either pod's wire. Where it is plaintext the same marker can be
read, so the search would have found it.
"""

import hashlib
import json
import ssl
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Final

import pytest

from tests.cluster.capture import Capture, capturing
from tests.cluster.kubectl import Object, eventually
from tests.cluster.machine import growth
from tests.cluster.matrix import (
    DIRECT,
    EXTERNAL,
    ITSELF,
    NAMED,
    NODE_PORT,
    OBSERVED,
    POD_V6,
    PROTOCOLS,
    SERVICE,
    SERVICE_V6,
    UNMESHED,
    Counts,
    Matrix,
    addresses_of,
    matrix_pods,
)
from tests.cluster.mutual import token
from tests.cluster.outside import Outside, outside_machine, serving_outside
from tests.cluster.results import Table
from tests.fixtures_cluster import RunningCluster

pytestmark = pytest.mark.cluster

HANDSHAKES: Final = Path(__file__).with_name("handshakes.py")
NO_IPV6: Final = "not tried", "this cluster has no IPv6"


def table(title: str, *paths: str) -> Table:
    return Table(title, tuple((protocol.name, path) for protocol in PROTOCOLS for path in paths))


TLS_DIRECT: Final = table("Meshed to meshed, inbound `direct`", *NAMED, ITSELF, NODE_PORT)
TLS_OBSERVED: Final = table("Meshed to meshed, inbound `observed`", *NAMED, ITSELF, NODE_PORT)
TLS: Final = {DIRECT: TLS_DIRECT, OBSERVED: TLS_OBSERVED}
TO_UNMESHED: Final = table("Meshed to not meshed", *NAMED, NODE_PORT, EXTERNAL)
PLAIN_DIRECT: Final = table("Not meshed to meshed, inbound `direct`", *NAMED, NODE_PORT)
PLAIN_OBSERVED: Final = table("Not meshed to meshed, inbound `observed`", *NAMED, NODE_PORT)
FROM_UNMESHED: Final = {DIRECT: PLAIN_DIRECT, OBSERVED: PLAIN_OBSERVED}
FROM_MESHED, FROM_OTHER = "from a meshed pod", "from a pod that is not meshed"
BEHIND_MIXED: Final = table("A Service with meshed and other endpoints", FROM_MESHED, FROM_OTHER)
BEHIND_SNAT: Final = Table(
    "A client behind SNAT, through a NodePort",
    tuple(("HTTPS of the app, 50 silent connections held", server) for server in (DIRECT, OBSERVED)),
)
# How long counts are waited for before everything is tried again; whatever it is, the numbers must be right in the end.
SETTLED_S: Final = 15.0
COUNTED: Final = sum(protocol.counted for protocol in PROTOCOLS)


@pytest.fixture(scope="module")
def matrix(cluster: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    with matrix_pods(cluster, tmp_path_factory.mktemp("matrix")) as found:
        yield found


@pytest.fixture(scope="module")
def outside(matrix: Matrix) -> Iterator[Outside]:
    with outside_machine(matrix.machine) as found:
        yield found


def new_markers() -> dict[str, str]:
    """One for each protocol."""
    return {protocol.name: token() for protocol in PROTOCOLS}


def without_ipv6(matrix: Matrix, table: Table, path: str) -> None:
    """Ends the test where the cluster has no IPv6: then the machine has none (cluster/network.py)."""
    if path in (SERVICE_V6, POD_V6) and not matrix.home.cluster.ipv6:
        for protocol in PROTOCOLS:
            table.record(protocol.name, path, *NO_IPV6)
        pytest.skip(NO_IPV6[1])


def dial(matrix: Matrix, client: Object, server: str, path: str, markers: dict[str, str]) -> list[Object]:
    """What each protocol's server answered. Every one has heard its marker."""
    answers = matrix.dial(client, matrix.jobs(server, path, markers))
    for protocol, answer in zip(PROTOCOLS, answers, strict=True):
        assert markers[protocol.name] in answer["echo"], (protocol.name, answer)
    return answers


def peers_of(answers: list[Object]) -> set[str]:
    """Whom the applications saw."""
    return {peer for answer in answers for _, peer in answer["seen"]}


@contextmanager
def wires(matrix: Matrix, folder: Path, *pods: Object) -> Generator[list[Capture]]:
    """What passes these pods' ends of the network within the block."""
    with ExitStack() as stack:
        yield [stack.enter_context(capturing(matrix.machine, matrix.enter(pod), folder / token())) for pod in pods]


def readable(captures: list[Capture], markers: dict[str, str]) -> set[str]:
    """The protocols whose marker passed a wire as it is; `SMTP` also for what its server says first."""
    frames = b"".join(capture.frames() for capture in captures)
    assert len(frames) > 10_000
    found = {name for name, marker in markers.items() if marker.encode() in frames}
    return found | ({"SMTP"} if b"ESMTP Exim" in frames else set())


IN_PLAIN: Final = {protocol.name for protocol in PROTOCOLS if not protocol.hidden}


@pytest.mark.parametrize("path", [*NAMED, ITSELF])
@pytest.mark.parametrize("server", [DIRECT, OBSERVED])
def test_meshed_pods_talk_mutual_tls_and_nothing_readable_passes(
    matrix: Matrix, server: str, path: str, tmp_path: Path
) -> None:
    without_ipv6(matrix, TLS[server], path)
    pod = matrix.pod(server)
    client = pod if path == ITSELF else matrix.client(meshed=True)

    last: list[tuple[float, float, float]] = []

    def all_by_tls() -> bool:
        markers = new_markers()
        before = matrix.counts(client, pod)
        with wires(matrix, tmp_path, client, pod) as captures:
            answers = dial(matrix, client, server, path, markers)
            # Proxies count what has ended, so a moment later than it was answered.
            with suppress(AssertionError):
                eventually(lambda: since(before) == (COUNTED, COUNTED, 0), "all counted", deadline_s=SETTLED_S)
            if last[-1] != (COUNTED, COUNTED, 0):
                # A handshake that takes longer than a second falls back to plaintext and is counted as that: on a busy
                # machine it says nothing, so all are tried again.
                return False
            if path != ITSELF:  # stays within the pod, so there is no wire to look at
                assert readable(captures, markers) == set()
        # The application is dialled by its own proxy, where the TLS ends.
        assert peers_of(answers) <= set(addresses_of(pod))
        return True

    def since(before: Counts) -> tuple[float, float, float]:
        last.append(matrix.counts(client, pod).since(before))
        return last[-1]

    wanted = f"{COUNTED} connections and requests, all by mutual TLS"
    eventually(all_by_tls, lambda: f"{wanted}, as both proxies count them and none in plaintext: {last[-1]}")
    evidence = "both proxies counted it; the app's peer is its own pod"
    if path != ITSELF:
        evidence += "; unreadable on both pods' wires"
    for protocol in PROTOCOLS:
        TLS[server].record(protocol.name, path, "mutual TLS", evidence)


@pytest.mark.parametrize("path", [*NAMED, NODE_PORT, EXTERNAL])
def test_meshed_client_reaches_what_is_not_meshed_in_plaintext(
    matrix: Matrix, outside: Outside, path: str, tmp_path: Path
) -> None:
    without_ipv6(matrix, TO_UNMESHED, path)
    client = matrix.client(meshed=True)
    with ExitStack() as stack:
        if path == EXTERNAL:
            stack.enter_context(serving_outside(outside, matrix.pod(UNMESHED)))
        plain(matrix, client, UNMESHED, path, tmp_path)
    evidence = "the client's proxy counted it" + ("" if path == NODE_PORT else "; the client's address kept")
    for protocol in PROTOCOLS:
        TO_UNMESHED.record(protocol.name, path, "plaintext", evidence)


@pytest.mark.parametrize("server", [DIRECT, OBSERVED])
def test_node_ports_of_meshed_pods_are_plaintext_for_meshed_clients_too(
    matrix: Matrix, server: str, tmp_path: Path
) -> None:
    plain(matrix, matrix.client(meshed=True), server, NODE_PORT, tmp_path)
    for protocol in PROTOCOLS:
        TLS[server].record(protocol.name, NODE_PORT, "plaintext", "the client's proxy counted it")


def plain(matrix: Matrix, client: Object, server: str, path: str, folder: Path) -> None:
    """Everything is answered and readable, and a proxy of the client's counts each connection as plaintext."""
    markers, before = new_markers(), matrix.counts(client)
    with wires(matrix, folder, client) as captures:
        answers = dial(matrix, client, server, path, markers)
        assert readable(captures, markers) == IN_PLAIN
    if path != NODE_PORT:  # kube-proxy gives those the node's address
        assert peers_of(answers) <= set(addresses_of(client))
    wanted = (0, 0, len(PROTOCOLS))
    eventually(lambda: matrix.counts(client).since(before) == wanted, lambda: f"{matrix.counts(client).since(before)}")


@pytest.mark.parametrize("path", [*NAMED, NODE_PORT])
@pytest.mark.parametrize("server", [DIRECT, OBSERVED])
def test_client_without_a_mesh_reaches_meshed_pods_in_plaintext(
    matrix: Matrix, server: str, path: str, tmp_path: Path
) -> None:
    without_ipv6(matrix, FROM_UNMESHED[server], path)
    client, pod, markers = matrix.client(meshed=False), matrix.pod(server), new_markers()
    # kube-proxy gives connections to a NodePort the node's address, which the kubelet's probes have too.
    known = path != NODE_PORT
    before = matrix.inbound(pod)
    with wires(matrix, tmp_path, client) as captures:
        answers = dial(matrix, client, server, path, markers)
        assert readable(captures, markers) == IN_PLAIN
    peers = peers_of(answers)
    if server == DIRECT:
        assert growth(before, matrix.inbound(pod)) == 0
        assert peers <= set(addresses_of(client)) or not known
        evidence = "the server's proxy saw nothing of it" + ("; the client's address kept" if known else "")
    else:
        assert peers <= set(addresses_of(pod))
        sources = [f'src="{address}"' for address in addresses_of(client)] if known else [""]

        def counted() -> float:
            after = matrix.inbound(pod)
            return sum(growth(before, {name: n for name, n in after.items() if source in name}) for source in sources)

        wanted = len(PROTOCOLS)
        eventually(lambda: counted() == wanted if known else counted() >= wanted, lambda: f"{wanted}: {counted()}")
        evidence = "the server's proxy counted it" + ("; from the client's address" if known else "")
    for protocol in PROTOCOLS:
        FROM_UNMESHED[server].record(protocol.name, path, "plaintext", evidence)


@pytest.mark.parametrize("meshed", [True, False], ids=[FROM_MESHED, FROM_OTHER])
def test_service_with_meshed_and_other_endpoints_is_mutual_tls_where_it_can_be(matrix: Matrix, meshed: bool) -> None:
    client = matrix.client(meshed)
    seen: set[tuple[str, str, str]] = set()
    wanted = {DIRECT: addresses_of(matrix.pod(DIRECT)) if meshed else addresses_of(client)}
    wanted["bystander"] = addresses_of(client)

    def both_seen() -> bool:
        for protocol, answer in zip(PROTOCOLS, dial(matrix, client, "mixed", SERVICE, new_markers()), strict=True):
            for pod, peer in answer["seen"]:
                name = pod.removesuffix("-0")
                seen.add((protocol.name, name, "as wanted" if peer in wanted[name] else peer))
        good = {(protocol, pod) for protocol, pod, how in seen if how == "as wanted"}
        protocols, pods = {protocol for protocol, _ in good}, {pod for _, pod in good}
        # Each protocol by one at least: taking turns may give one protocol the same server every time.
        return protocols == {each.name for each in PROTOCOLS} and pods == set(wanted)

    eventually(both_seen, lambda: f"every protocol as it should be, and both pods: {sorted(seen)}")
    if not meshed:
        assert {how for _, _, how in seen} == {"as wanted"}
    outcome = "mutual TLS to the meshed one, plaintext to the other" if meshed else "plaintext to both"
    for protocol in PROTOCOLS:
        path = FROM_MESHED if meshed else FROM_OTHER
        BEHIND_MIXED.record(
            protocol.name, path, outcome, "both answered; the app's peer is its own pod where it is TLS"
        )


def test_client_behind_snat_gets_the_apps_own_certificate_while_silent_connections_are_held(
    matrix: Matrix, outside: Outside
) -> None:
    """The original's known issue. A client on another machine, a NodePort with externalTrafficPolicy Cluster, so that
    kube-proxy gives every connection the node's address."""
    servers = (UNMESHED, DIRECT, OBSERVED)
    targets = {server: matrix.target(server, NODE_PORT) for server in servers}
    for server in servers:
        assert matrix.service(server, "-node")["spec"]["externalTrafficPolicy"] == "Cluster"
    places = [[host, ports["https"]] for host, ports in targets.values()]
    argv = [*outside.enter, sys.executable, str(HANDSHAKES), "20", "50"]
    done = subprocess.run(argv, input=json.dumps(places), capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stderr
    found = dict(zip(servers, map(json.loads, done.stdout.splitlines()), strict=True))
    own = hashlib.sha256(ssl.PEM_cert_to_DER_cert(matrix.certificate)).hexdigest()
    assert {server: seen["certificates"] for server, seen in found.items()} == {server: [own] for server in servers}
    base = median(found[UNMESHED]["ms"])
    for server in (DIRECT, OBSERVED):
        added = median(found[server]["ms"]) - base
        told = f"added median {added:+.2f} ms to {base:.2f} ms of a pod without a sidecar (budget 5 ms)"
        print(f"{server}: {told}")
        BEHIND_SNAT.record("HTTPS of the app, 50 silent connections held", server, "the app's own certificate", told)
