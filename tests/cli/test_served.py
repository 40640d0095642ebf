"""The certificate that a proxy serves, against the one issued."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from ca.authority import Authority
from ca.issuer import Issued
from cli.checks.model import Verdict
from cli.commands.identity import chosen
from cli.errors import CliError
from cli.served import ARRIVAL, Served, State, compare, handshake, told
from kube.client import HttpApi
from mesh.pod import ObjectMeta, OwnerReference, Pod
from mesh.svid import TrustBundle
from tests.ca.authorities import LIFETIMES, T0, TRUST_DOMAIN, WEB, a_leaf, a_root, an_issuer, secret_data

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def issuer() -> Authority:
    return an_issuer(a_root())


def leaf(issuer: Authority, age: timedelta = timedelta(0), account: str = "web") -> x509.Certificate:
    """Issued `age` before T0 + 1 h."""
    issued = a_leaf(issuer, TRUST_DOMAIN.workload("shop", account), T0 + HOUR - age)
    return x509.load_pem_x509_certificate(issued.chain_pem)


def compared(served: Served, issued: x509.Certificate | None, now: datetime = T0 + HOUR) -> tuple[State, Verdict]:
    found = compare(served, issued, str(WEB), LIFETIMES, now)
    assert found.message
    return found.state, found.verdict


def test_the_one_issued_is_a_match(issuer: Authority) -> None:
    one = leaf(issuer)
    assert compared(Served(one), one) == (State.MATCH, Verdict.OK)


@pytest.mark.parametrize(
    ("age", "state", "verdict"),
    [
        (timedelta(0), State.ARRIVING, Verdict.OK),
        (ARRIVAL, State.ARRIVING, Verdict.OK),
        (ARRIVAL + timedelta(seconds=1), State.BEHIND, Verdict.FAIL),
    ],
    ids=["issued just now", "the last moment in which the kubelet may bring it", "later"],
)
def test_a_newer_secret_is_on_its_way_and_then_late(
    issuer: Authority, age: timedelta, state: State, verdict: Verdict
) -> None:
    served, issued = Served(leaf(issuer, 5 * HOUR)), leaf(issuer, age)
    assert compared(served, issued) == (state, verdict)
    assert compare(served, issued, str(WEB), LIFETIMES, T0 + HOUR).lag == age


def test_an_older_secret_is_said_to_be_older(issuer: Authority) -> None:
    found = compare(Served(leaf(issuer, HOUR)), leaf(issuer, 5 * HOUR), str(WEB), LIFETIMES, T0 + HOUR)
    assert (found.state, found.verdict) == (State.AHEAD, Verdict.WARN)
    assert found.message == "the Secret holds an older one: the one served was issued 60 min ago"


def test_what_makes_it_useless_comes_before_the_comparison(issuer: Authority) -> None:
    one = leaf(issuer)
    assert compared(Served(one), one, T0 + 26 * HOUR) == (State.EXPIRED, Verdict.FAIL)
    assert compared(Served(one, "unable to get local issuer"), one) == (State.UNTRUSTED, Verdict.FAIL)
    other = leaf(issuer, account="other")
    assert compared(Served(other), other) == (State.WRONG_IDENTITY, Verdict.FAIL)
    assert compared(Served(one), None) == (State.NOT_ISSUED, Verdict.WARN)


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (timedelta(seconds=-5), "0 s"),
        (timedelta(seconds=119.9), "119 s"),
        (timedelta(seconds=120), "2 min"),
        (timedelta(hours=2), "2 h"),
        (timedelta(hours=23, minutes=59), "23 h 59 min"),
        (timedelta(days=2), "2 days"),
    ],
)
def test_a_span_is_told_in_units_that_people_use(span: timedelta, words: str) -> None:
    assert told(span) == words


def a_pod(name: str, *owner: str) -> Pod:
    owners = (OwnerReference(kind=owner[0], name=owner[1], controller=True),) if owner else None
    labels = {"pod-template-hash": "5d8f"}
    return Pod(ObjectMeta(name=name, namespace="shop", labels=labels, owner_references=owners))


def test_a_workload_stands_for_its_pods() -> None:
    pods = [
        a_pod("web-5d8f-b", "ReplicaSet", "web-5d8f"), a_pod("web-5d8f-a", "ReplicaSet", "web-5d8f"),
        a_pod("db-0", "StatefulSet", "db"), a_pod("alone"),
    ]  # fmt: skip

    def named(what: str) -> list[str]:
        return [pod.metadata.name for pod in chosen(pods, what, "shop")]

    assert named("deploy/web") == named("Deployment/web") == ["web-5d8f-a", "web-5d8f-b"]
    assert named("sts/db") == ["db-0"]
    assert named("alone") == named("pod/alone") == ["alone"]
    with pytest.raises(CliError, match="no pod of ds/web in namespace shop"):
        chosen(pods, "ds/web", "shop")


class Forwarded(HttpApi):
    """A port-forward to a server on this machine."""

    def __init__(self, port: int) -> None:
        self._port = port

    @asynccontextmanager
    async def websocket(self, path: str, **_: object) -> AsyncGenerator[object, None]:  # type: ignore[override]
        assert path == "/api/v1/namespaces/shop/pods/web-1/portforward"
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            yield Tunnel(reader, writer)
        finally:
            writer.close()


class Tunnel:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send_bytes(self, data: bytes) -> None:
        self._writer.write(data[1:])
        await self._writer.drain()

    def __aiter__(self) -> Tunnel:
        return self

    async def __anext__(self) -> object:
        import aiohttp

        if not (data := await self._reader.read(4096)):
            raise StopAsyncIteration
        return aiohttp.WSMessage(aiohttp.WSMsgType.BINARY, b"\x00" + data, None)


@asynccontextmanager
async def serving(issued: Issued, root: Authority, folder: Path) -> AsyncGenerator[Forwarded, None]:
    """A server that requires a certificate of its clients, as 15108 does."""
    for name, data in secret_data(issued, root).items():
        (folder / name).write_bytes(data)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    context.load_verify_locations(folder / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED

    async def nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with await asyncio.start_server(nothing, "127.0.0.1", 0, ssl=context) as server:
        yield Forwarded(server.sockets[0].getsockname()[1])


async def look(api: Forwarded, bundle: TrustBundle) -> Served:
    return await handshake(api, namespace="shop", pod="web-1", server_port=8080, bundle=bundle)


async def test_a_handshake_shows_the_certificate_without_one_of_our_own(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    root = a_root(now - HOUR)
    issued = a_leaf(an_issuer(root, now - HOUR), now=now)
    async with serving(issued, root, tmp_path) as api:
        served = await look(api, TrustBundle.of([root.certificate]))
        assert served == Served(x509.load_pem_x509_certificate(issued.chain_pem))
        strangers = await look(api, TrustBundle.of([a_root(now - HOUR).certificate]))
        assert strangers.leaf == served.leaf
        assert "unable to get" in strangers.fault


async def test_a_proxy_that_serves_nothing_is_an_error_with_a_hint() -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", 0) as server:
        api = Forwarded(server.sockets[0].getsockname()[1])
        with pytest.raises(CliError, match="serves no certificate") as raised:
            await look(api, TrustBundle.of([a_root().certificate]))
    assert raised.value.hint == "kubectl -n shop logs web-1 -c autotls-proxy"
