"""A pod's port on this machine's loopback, through the real API server and kubelet."""

import asyncio
import ssl

import pytest

from kube.client import connect
from kube.errors import ApiError
from kube.portforward import forwarded
from mesh import names
from tests.cluster.kubectl import DEADLINE_S, Space, eventually
from tests.cluster.plane import a_pod, an_account
from tests.fixtures_cluster import RunningCluster

pytestmark = pytest.mark.cluster


async def ask(port: int, times: int) -> list[bytes]:
    """The first lines of that many answers at once, each over a connection of its own."""

    async def once() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n")
        line = await reader.readline()
        writer.close()
        return line

    return list(await asyncio.gather(*(once() for _ in range(times))))


async def served_certificate(port: int) -> bytes | None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["autotls-tcp"])
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="8080")
    except OSError:
        return None
    found: ssl.SSLObject = writer.get_extra_info("ssl_object")
    writer.close()
    return found.getpeercert(binary_form=True)


async def test_a_forwarded_port_carries_many_connections_and_tells_why_one_failed(
    cluster: RunningCluster, shop: Space
) -> None:
    shop.apply(an_account("web"))
    secret = names.identity_secret_name("web")
    eventually(lambda: shop.find("secret", secret), f"Secret {secret}")
    shop.apply(a_pod(cluster, "web", "web"))
    shop.wait_ready("web")
    complaints: list[ApiError] = []
    where = {"namespace": shop.name, "pod": "web"}

    async with connect(kubeconfig=str(cluster.kubeconfig)) as api:
        async with forwarded(api, **where, port=8080) as port:
            assert await ask(port, 5) == [b"HTTP/1.1 200 OK\r\n"] * 5
        async with forwarded(api, **where, port=names.INBOUND_TLS_PORT) as port:
            # A pod may be Ready before its proxy is.
            for _ in range(int(DEADLINE_S)):
                if served := await served_certificate(port):
                    break
                await asyncio.sleep(1)
            assert served
        async with forwarded(api, **where, port=9, complain=complaints.append) as port:
            assert await ask(port, 1) == [b""]
        async with forwarded(api, namespace=shop.name, pod="nobody", port=8080, complain=complaints.append) as port:
            assert await ask(port, 1) == [b""]

    assert len(complaints) == 2
    assert "localhost:9" in complaints[0].message
    assert complaints[1].status == 404
