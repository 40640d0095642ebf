"""A meshed client and server with real Envoys in network namespaces, and a discovery of their own."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.envoys import REPOSITORY, App
from bench.mesh import Way
from tests.discovery.fleet import Fleet, Member
from tests.discovery.objects import endpoint_slice, service
from tests.proxy.namespaces import eventually, http_get

_VIP: Final = "10.96.7.10"


def meshed_pair(
    folder: Path,
    stack: ExitStack,
    *,
    proxy: Path = REPOSITORY / "proxy",
    start: Callable[[Fleet], None] = lambda fleet: fleet.discovery.start(),
) -> tuple[Way, Fleet]:
    """The way through the server's Service, by mutual TLS already; ends with `stack`.

    `proxy` is the folder of both proxies' scripts and bootstrap, `start` starts discovery.
    """
    folder.mkdir()
    fleet = Fleet(folder, stack)
    client, server = fleet.member("client-0", "client", proxy=proxy), fleet.member("web-0", "web", proxy=proxy)
    stack.callback(App(server, folder).close)
    fleet.announce(client, server)
    fleet.discovery.put(service("web", _VIP), endpoint_slice("web", server.address))
    start(fleet)
    fleet.configured(client)
    eventually(lambda: _by_tls(client, server), within_s=30, what="mutual TLS")
    return Way(client, _VIP, (client, server)), fleet


def _by_tls(client: Member, server: Member) -> bool:
    """By what the server's proxy counts: the client's may count nothing here."""
    http_get(client.network, _VIP, 80, "/")
    return server.proxy.metric("envoy_autotls_rq", dir="inbound", tls="TLSv1.2") > 0
