"""`prove` with real Envoys: the connection goes as the application's would, and each step says what was seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509

from cli.checks.model import Verdict
from cli.checks.proxies import Proxy, parse_metrics
from cli.errors import CliError
from cli.proof import attempt
from cli.proof.door import Stream
from cli.proof.facts import Facts
from cli.proof.judgement import Step, StepId
from cli.proof.run import prove, request_for
from discovery.kinds import ServicePort
from discovery.snapshot import plan_service, pod_facts
from mesh import names
from mesh.pod import ContainerState, ContainerStatus, Pod, StateDetail
from tests.discovery.fleet import Fleet, Member, gathered
from tests.discovery.objects import CONFIG, endpoint_slice, identity, pod, service
from tests.discovery.test_data_plane import PORTS, SLICE_PORTS, UPSTREAM_TLS, VIP, serve, shop
from tests.proxy.certificates import swap_identity
from tests.proxy.namespaces import WITHIN_S, eventually, http_get

pytestmark = pytest.mark.envoy

HTTP_PORT = ServicePort(port=80, name="web", target_port=8080, app_protocol="http")
REDIRECTED = ContainerStatus(
    name=names.INIT_CONTAINER,
    state=ContainerState(terminated=StateDetail(message="redirect_written chains='outbound' skip_outbound='25,465'")),
)


class LocalSockets:
    """The sockets of a proxy on this machine."""

    def __init__(self, member: Member) -> None:
        self._folder = member.proxy.run_folder

    @asynccontextmanager
    async def open(self, name: str) -> AsyncGenerator[Stream, None]:
        reader, writer = await asyncio.open_unix_connection(self._folder / name)
        try:
            yield LocalStream(reader, writer)
        finally:
            writer.close()


class LocalStream:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def read(self) -> bytes:
        return await self._reader.read(65536)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with gathered(tmp_path) as fleet:
        yield fleet


@pytest.fixture
def pair(fleet: Fleet) -> tuple[Member, Member]:
    """A meshed client and a meshed server behind the Service, configured."""
    server, client = serve(fleet.member("web-0", "web")), fleet.member("client-0", "client")
    fleet.announce(server, ports=(8080, 3306, 7000))
    fleet.announce(client, ports=(9000,))
    shop(fleet, server)
    fleet.discovery.start()
    fleet.configured(client)
    return client, server


def a_pod(member: Member) -> Pod:
    """As the API server shows it."""
    found = pod(member.name, member.address, service_account=member.account, meshed=member.sidecar is not None)
    statuses = (REDIRECTED, *(found.status.init_container_statuses or ()))
    return msgspec.structs.replace(
        found, status=msgspec.structs.replace(found.status, init_container_statuses=statuses)
    )


def facts_of(client: Member, port: int, *servers: Member, ports: tuple[ServicePort, ...] = PORTS) -> Facts:
    mine = pod_facts(a_pod(client), None, CONFIG)
    assert mine
    known = {each.address: pod_facts(a_pod(each), None, CONFIG) for each in servers}
    web = service("web", VIP, ports=ports)
    slices = [endpoint_slice("web", *known, ports=SLICE_PORTS)]
    plan = plan_service(web, slices, {address: facts for address, facts in known.items() if facts}, CONFIG)
    chosen = next(each for each in plan.ports if each.port == port)
    return Facts(a_pod(client), mine, web, chosen, plan.unsupported)


def proof(client: Member, facts: Facts, *, request: bool = False) -> dict[StepId, Step]:
    async def collect() -> dict[StepId, Step]:
        sent = request_for(facts, wanted=request)
        return {step.id: step async for step in prove(LocalSockets(client), facts, sent, datetime.now(UTC))}

    return asyncio.run(collect())


def verdicts(steps: dict[StepId, Step]) -> dict[str, str]:
    """What is not ok."""
    return {step.id.value: step.verdict.value for step in steps.values() if step.verdict is not Verdict.OK}


@pytest.mark.parametrize("port", [3306, 7000, 80], ids=["declared as TCP", "undeclared", "detected"])
def test_between_meshed_pods_a_bare_connection_is_proven_mutual_tls(pair: tuple[Member, Member], port: int) -> None:
    client, server = pair
    steps = proof(client, facts_of(client, port, server))
    assert verdicts(steps) == {}
    assert steps[StepId.TLS].message == f"mutual TLS, {UPSTREAM_TLS}"
    assert steps[StepId.SERVER_IDENTITY].message == identity("web")
    assert steps[StepId.CLIENT_IDENTITY].message.startswith(identity("client"))
    assert steps[StepId.CONNECTION].message == (
        f"{client.address} to {VIP}:{port}, given to {server.address}:15108: established, and closed again"
    )
    # The server's own proxy saw the very connection.
    eventually(lambda: server.proxy.metric("envoy_autotls_rq", dir="inbound", peer=identity("client")) == 1)


def test_with_a_request_the_answer_of_the_application_is_told(pair: tuple[Member, Member]) -> None:
    client, server = pair
    steps = proof(client, facts_of(client, 80, server), request=True)
    assert verdicts(steps) == {}
    assert steps[StepId.CONNECTION].message.endswith("given to " + server.address + ":15108: HTTP/1.1 200 OK")


def test_the_applications_own_traffic_does_not_blur_the_proof(pair: tuple[Member, Member]) -> None:
    client, server = pair
    for _ in range(5):
        assert http_get(client.network, VIP, 80, "/")[0] == 200
    steps = proof(client, facts_of(client, 80, server), request=True)
    assert verdicts(steps) == {}


def test_http_without_a_request_proves_nothing_and_says_so(fleet: Fleet) -> None:
    server, client = serve(fleet.member("web-0", "web")), fleet.member("client-0", "client")
    fleet.announce(server, client)
    fleet.discovery.put(
        service("web", VIP, ports=(HTTP_PORT,)), endpoint_slice("web", server.address, ports=SLICE_PORTS)
    )
    fleet.discovery.start()
    fleet.configured(client)
    facts = facts_of(client, 80, server, ports=(HTTP_PORT,))
    steps = proof(client, facts)
    assert verdicts(steps) == {"connection": "skip"}
    assert StepId.TLS not in steps
    assert verdicts(proof(client, facts, request=True)) == {}


def test_an_unmeshed_server_is_plaintext_with_the_reason(fleet: Fleet) -> None:
    server, client = serve(fleet.member("web-0", "web", meshed=False)), fleet.member("client-0", "client")
    fleet.announce(server, client)
    shop(fleet, server)
    fleet.discovery.start()
    fleet.configured(client)
    steps = proof(client, facts_of(client, 7000, server))
    assert verdicts(steps) == {"configuration": "warn", "server-identity": "skip", "tls": "fail"}
    assert steps[StepId.TLS].message == "plaintext: none of its 1 endpoint(s) is meshed (not_meshed)"
    assert steps[StepId.CONNECTION].message.endswith(f"given to {VIP}:7000: established, and closed again")


def test_a_mixed_service_names_the_reason_of_the_endpoint_that_was_taken(fleet: Fleet) -> None:
    meshed, plain = serve(fleet.member("web-0", "web")), serve(fleet.member("web-1", "web", meshed=False))
    client = fleet.member("client-0", "client")
    fleet.announce(meshed, plain, client)
    shop(fleet, meshed, plain)
    fleet.discovery.start()
    fleet.configured(client)
    # Round robin: one goes to each.
    messages = {proof(client, facts_of(client, 7000, meshed, plain))[StepId.TLS].message for _ in range(2)}
    assert messages == {f"mutual TLS, {UPSTREAM_TLS}", "plaintext (not_meshed)"}


def test_a_peer_with_another_identity_is_a_failed_handshake(fleet: Fleet, pair: tuple[Member, Member]) -> None:
    client, server = pair
    fleet.identify(server, "impostor")
    facts = facts_of(client, 3306, server)
    first = proof(client, facts)
    assert first[StepId.TLS].message == "plaintext (handshake_failed): the handshake failed (ssl.fail_verify_san)"
    assert first[StepId.CONNECTION].message.endswith(f"given to {server.address}:3306: established, and closed again")

    def left_on_plaintext() -> bool:
        """For five seconds, and longer each time: a proof that came later than that is one more failed handshake."""
        again = proof(client, facts)
        assert again[StepId.TLS].verdict is Verdict.FAIL
        return f"{server.address}:15108 could not be reached by TLS before" in again[StepId.TLS].message

    eventually(left_on_plaintext)


def test_a_dead_proxy_of_the_server_is_unreachable(pair: tuple[Member, Member]) -> None:
    client, server = pair
    server.proxy.terminate()
    server.proxy.exit_status()
    steps = proof(client, facts_of(client, 3306, server))
    assert steps[StepId.TLS].message.startswith("plaintext (unreachable): port 15108 of the peer")


def test_without_identity_files_of_its_own_it_is_the_clients_fault(fleet: Fleet, pair: tuple[Member, Member]) -> None:
    _, server = pair
    late = fleet.member("late-0", "late", files=False)
    steps = proof(late, facts_of(late, 3306, server))
    assert verdicts(steps) == {
        "proxy": "warn", "configuration": "fail", "client-identity": "fail", "server-identity": "skip", "tls": "fail",
    }  # fmt: skip
    assert "discovery_unavailable" in steps[StepId.PROXY].message
    assert "no_identity_client" in steps[StepId.CLIENT_IDENTITY].message


def test_nobody_listens_is_no_connection(pair: tuple[Member, Member], monkeypatch: pytest.MonkeyPatch) -> None:
    client, server = pair
    # Production looks for half a second whether the other side closes.
    monkeypatch.setattr(attempt, "_LINGER_S", WITHIN_S)
    for app in server.apps:
        app.__exit__()
    steps = proof(client, facts_of(client, 3306, server))
    assert steps[StepId.CONNECTION].verdict is Verdict.WARN
    assert "the other side closed it at once" in steps[StepId.CONNECTION].message


def test_a_client_with_another_identity_is_told(fleet: Fleet, pair: tuple[Member, Member]) -> None:
    client, server = pair
    stranger = fleet.authority.leaf(identity("somebody-else"))
    fleet.give(client, stranger)
    steps = proof(client, facts_of(client, 3306, server))
    assert steps[StepId.CLIENT_IDENTITY].verdict is Verdict.FAIL
    assert f"it shows {identity('somebody-else')}" in steps[StepId.CLIENT_IDENTITY].message


def test_a_request_to_a_port_of_bytes_is_refused(pair: tuple[Member, Member]) -> None:
    client, server = pair
    with pytest.raises(CliError, match="does not speak HTTP"):
        proof(client, facts_of(client, 3306, server), request=True)


def test_the_socket_is_the_proxys_alone(pair: tuple[Member, Member]) -> None:
    client, _ = pair
    state = (client.proxy.run_folder / "prove.sock").stat()
    assert (state.st_uid, state.st_mode & 0o777) == (names.PROXY_UID, 0o600)
    # And no port of the pod leads to it.
    listening = client.network.run("ss", "-Hltn").stdout.split()
    ports = {entry.rpartition(":")[2] for entry in listening if ":" in entry} - {"*"}
    assert ports == {"15101", "15108", "15120"}


def test_what_check_reads_of_a_proxy_is_what_it_serves(fleet: Fleet, pair: tuple[Member, Member]) -> None:
    client, _ = pair
    late = fleet.member("late-0", "late", files=False)
    found = parse_metrics(a_pod(late), late.proxy.status("/metrics")[1])
    assert (found.connected, found.leaf_ends) == (False, None)

    def served() -> Proxy:
        return parse_metrics(a_pod(client), client.proxy.status("/metrics")[1])

    assert served().connected
    renewed = fleet.authority.leaf(identity("client"), valid_until=timedelta(minutes=90))
    ends = x509.load_pem_x509_certificate(renewed.certificate).not_valid_after_utc
    assert served().leaf_ends != ends
    swap_identity(client.proxy.identity, renewed.files())
    eventually(lambda: served().leaf_ends == ends)
