"""A proof from its first step to its last. The edge."""

from collections.abc import AsyncIterator
from datetime import datetime

from cli.checks.model import Verdict
from cli.errors import CliError
from cli.proof import envoy, judgement
from cli.proof.attempt import Evidence, Route, try_once
from cli.proof.door import ADMIN, Admin, Sockets
from cli.proof.facts import Facts
from cli.proof.judgement import Step
from discovery.protocols import Protocol
from mesh import series

# Tries while the application's own connections make the answer unclear.
_TRIES = 5


def request_for(facts: Facts, *, wanted: bool) -> bytes | None:
    """The bytes to send: none for TCP; None where nothing can be proved without a request. Raises CliError."""
    protocol = facts.plan.protocol
    if not wanted:
        return None if protocol is Protocol.HTTP else b""
    if protocol is Protocol.TCP:
        raise CliError(f"port {facts.plan.port} does not speak HTTP", hint="leave out --request: a connection will do")
    host = f"{facts.service.metadata.name}.{facts.service.metadata.namespace}"
    return f"HEAD / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: autotls-prove\r\nConnection: close\r\n\r\n".encode()


async def prove(sockets: Sockets, facts: Facts, request: bytes | None, now: datetime) -> AsyncIterator[Step]:
    """The steps that need the proxy, as they are taken. Raises AutotlsError when it cannot be spoken to."""
    async with sockets.open(ADMIN) as stream:
        admin = Admin(stream)
        state = judgement.proxy_step(envoy.parse_numbers(await admin.get(envoy.state_path())))
        yield state
        if state.verdict is Verdict.FAIL:
            return
        yield judgement.redirect_step(facts)
        name = facts.plan.name
        listener = envoy.has_listener(await admin.get(envoy.listener_path(name)))
        hosts = envoy.parse_hosts(await admin.get(envoy.hosts_path(name)), name) if listener else ()
        configuration = judgement.configuration_step(facts, hosts, listener=listener)
        yield configuration
        yield judgement.client_identity_step(envoy.parse_leaf(await admin.get("/certs")), facts, now)
        # A listener that is there takes the connection, whatever should be there by now.
        cluster = name if listener else series.PASSTHROUGH
        evidence = None
        if request is not None:
            evidence = await _clear_evidence(sockets, admin, facts, cluster, request)
        yield judgement.connection_step(facts, evidence)
        if evidence is not None:
            yield judgement.server_identity_step(facts, evidence)
            yield judgement.tls_step(facts, evidence, configuration)


async def _clear_evidence(sockets: Sockets, admin: Admin, facts: Facts, cluster: str, request: bytes) -> Evidence:
    route = Route(facts.source, facts.plan.address, facts.plan.port, cluster)
    for _ in range(_TRIES - 1):
        evidence = await try_once(sockets, admin, route, request)
        if len({bool(each.tls) for each in evidence.counted}) < 2:
            return evidence
    return await try_once(sockets, admin, route, request)
