"""What a kubeconfig or a Pod gives to a request: TLS, credentials, proxies."""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bench.certificates import write_serving_pair
from kube import config
from kube.access import TOKEN_PERIOD_S, Access, TokenFile
from kube.client import connect
from kube.config import load_access
from kube.errors import KubeconfigError, UnreachableError


def kubeconfig(folder: Path, cluster: Mapping[str, object], user: Mapping[str, object]) -> str:
    path = folder / "config"
    document = {
        "clusters": [{"name": "c", "cluster": dict(cluster)}],
        "users": [{"name": "u", "user": dict(user)}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(json.dumps(document))
    return str(path)


async def credential(path: str) -> str:
    access = await load_access(kubeconfig=path, context=None)
    return await access.authorization() if access.authorization else ""


@asynccontextmanager
async def server(tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[str]]]:
    """A port that answers every request with an empty object, and the request heads that came."""
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield listener.sockets[0].getsockname()[1], heads
    finally:
        listener.close()


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A folder with a certificate that is its own authority, for both ends."""
    write_serving_pair(tmp_path)
    return tmp_path


def demanding(pair: Path) -> ssl.SSLContext:
    """A server's TLS that accepts only clients with the certificate of `pair`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pair / "tls.crt")
    context.load_cert_chain(pair / "tls.crt", pair / "tls.key")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def embedded(pair: Path, name: str) -> str:
    return base64.b64encode((pair / name).read_bytes()).decode()


@pytest.mark.parametrize("inline", [True, False], ids=["in the kubeconfig", "in files beside it"])
async def test_a_client_certificate_is_shown_to_the_server_that_the_authority_vouches_for(
    pair: Path, inline: bool
) -> None:
    def given(field: str, name: str) -> dict[str, str]:
        return {f"{field}-data": embedded(pair, name)} if inline else {field: name}

    async with server(demanding(pair)) as (port, heads):
        cluster = {"server": f"https://127.0.0.1:{port}/", **given("certificate-authority", "tls.crt")}
        user = {**given("client-certificate", "tls.crt"), **given("client-key", "tls.key")}
        async with connect(kubeconfig=kubeconfig(pair, cluster, user)) as api:
            assert await api.request("GET", "/api") == b"{}"
            assert await api.bearer_token() == ""
    assert heads[0].startswith("GET /api HTTP/1.1")
    assert "authorization" not in heads[0].lower()


async def test_a_server_that_the_authority_does_not_know_is_refused_unless_nobody_should_look(pair: Path) -> None:
    user = {"client-certificate": "tls.crt", "client-key": "tls.key"}
    other = pair / "other"
    other.mkdir()
    write_serving_pair(other)
    async with server(demanding(pair)) as (port, _):
        cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": "other/tls.crt"}
        async with connect(kubeconfig=kubeconfig(pair, cluster, user)) as api:
            with pytest.raises(UnreachableError):
                await api.request("GET", "/api")
        cluster["insecure-skip-tls-verify"] = True  # pyright: ignore[reportArgumentType]
        async with connect(kubeconfig=kubeconfig(pair, cluster, user)) as api:
            assert await api.request("GET", "/api") == b"{}"


@pytest.mark.parametrize(("name", "accepted"), [("localhost", True), ("elsewhere", False)])
async def test_the_servers_certificate_must_have_the_name_that_the_kubeconfig_says(
    pair: Path, name: str, accepted: bool
) -> None:
    user = {"client-certificate": "tls.crt", "client-key": "tls.key"}
    async with server(demanding(pair)) as (port, _):
        cluster = {
            "server": f"https://127.0.0.1:{port}",
            "certificate-authority": "tls.crt",
            "tls-server-name": name,
        }
        async with connect(kubeconfig=kubeconfig(pair, cluster, user)) as api:
            if accepted:
                assert await api.request("GET", "/api") == b"{}"
                return
            with pytest.raises(UnreachableError):
                await api.request("GET", "/api")


@pytest.mark.parametrize(
    "user",
    [
        {"client-certificate": "absent.crt", "client-key": "absent.key"},
        {"client-certificate-data": "bm90IFBFTQ==", "client-key-data": "bm90IFBFTQ=="},
        {"tokenFile": "absent"},
    ],
)
async def test_credentials_that_cannot_be_read_are_one_clear_error(tmp_path: Path, user: dict[str, str]) -> None:
    with pytest.raises(KubeconfigError, match="kubeconfig: "):
        await credential(kubeconfig(tmp_path, {"server": "https://127.0.0.1:1"}, user))


@pytest.mark.parametrize(
    ("user", "header"),
    [
        ({"token": "abc"}, "Bearer abc"),
        ({"tokenFile": "token", "token": "abc"}, "Bearer from-file"),
        ({"username": "me", "password": "påss"}, "Basic bWU6cMOlc3M="),
        ({}, ""),
    ],
)
async def test_a_credential_becomes_the_header(tmp_path: Path, user: dict[str, str], header: str) -> None:
    (tmp_path / "token").write_text("from-file\n")
    assert await credential(kubeconfig(tmp_path, {"server": "http://127.0.0.1:1"}, user)) == header


async def test_a_token_file_is_read_again_and_the_last_good_token_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("one")
    now = 0.0
    tokens = TokenFile(path, lambda: now)
    path.write_text("two")
    assert await tokens.authorization() == "Bearer one"
    now += TOKEN_PERIOD_S
    assert await tokens.authorization() == "Bearer two"
    for broken in (lambda: path.write_text(""), path.unlink):
        broken()
        now += TOKEN_PERIOD_S
        assert await tokens.authorization() == "Bearer two"
    path.write_text("three")
    now += TOKEN_PERIOD_S
    assert await tokens.authorization() == "Bearer three"


@pytest.mark.parametrize(
    ("host", "server"), [("10.96.0.1", "https://10.96.0.1:6443"), ("fd00::1", "https://[fd00::1]:6443")]
)
async def test_a_pod_uses_what_the_kubelet_mounted(
    pair: Path, monkeypatch: pytest.MonkeyPatch, host: str, server: str
) -> None:
    (pair / "ca.crt").write_bytes((pair / "tls.crt").read_bytes())
    (pair / "token").write_text("of-the-pod")
    monkeypatch.setattr(config, "IN_POD", pair)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    access = await load_access(kubeconfig=None, context=None)
    assert access.server == server
    assert access.authorization and await access.authorization() == "Bearer of-the-pod"
    assert access.tls and access.tls.cert_store_stats()["x509"] == 1


PROXIES = {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "near.example,10.0.0.1"}


@pytest.mark.parametrize(
    ("cluster", "proxy"),
    [
        ({"server": "https://far.example"}, "http://proxy:3128"),
        ({"server": "https://near.example:6443"}, ""),
        ({"server": "https://10.0.0.1:6443"}, ""),
        ({"server": "https://near.example", "proxy-url": "http://own:1"}, "http://own:1"),
    ],
)
async def test_the_proxy_is_the_kubeconfigs_or_the_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: dict[str, str], proxy: str
) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in PROXIES.items():
        monkeypatch.setenv(name, value)
    access = await load_access(kubeconfig=kubeconfig(tmp_path, cluster, {}), context=None)
    assert access.proxy == proxy


async def test_requests_pass_the_proxy(tmp_path: Path) -> None:
    async with server() as (port, heads):
        cluster = {"server": "http://nowhere.example", "proxy-url": f"http://127.0.0.1:{port}"}
        async with connect(kubeconfig=kubeconfig(tmp_path, cluster, {"token": "abc"})) as api:
            assert await api.request("GET", "/api") == b"{}"
    assert heads[0].startswith("GET http://nowhere.example/api HTTP/1.1")


def plugin(folder: Path, status: object, exit_code: int = 0) -> dict[str, Any]:
    """A user whose credential comes from a program, which counts its calls in `calls`."""
    api = "client.authentication.k8s.io/v1"
    (folder / "answer").write_text(json.dumps({"apiVersion": api, "kind": "ExecCredential", "status": status}))
    script = f"echo >> {folder}/calls; cat {folder}/answer; exit {exit_code}"
    return {"exec": {"apiVersion": api, "command": "sh", "args": ["-c", script], "interactiveMode": "Never"}}


async def test_an_exec_plugins_token_is_asked_for_again_when_it_has_ended(tmp_path: Path) -> None:
    cluster = {"server": "https://127.0.0.1:1"}
    for left, calls in ((timedelta(hours=1), 1), (timedelta(minutes=-1), 3)):
        ends = (datetime.now(UTC) + left).strftime("%Y-%m-%dT%H:%M:%SZ")
        (tmp_path / "calls").unlink(missing_ok=True)
        user = plugin(tmp_path, {"token": "from-plugin", "expirationTimestamp": ends})
        access = await load_access(kubeconfig=kubeconfig(tmp_path, cluster, user), context="x")
        assert access.authorization
        assert [await access.authorization() for _ in range(2)] == ["Bearer from-plugin"] * 2
        assert len((tmp_path / "calls").read_text().splitlines()) == calls


async def test_an_exec_plugins_certificate_is_shown(pair: Path) -> None:
    files = {"clientCertificateData": "tls.crt", "clientKeyData": "tls.key"}
    status = {name: (pair / file).read_text() for name, file in files.items()}
    async with server(demanding(pair)) as (port, _):
        cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": "tls.crt"}
        async with connect(kubeconfig=kubeconfig(pair, cluster, plugin(pair, status))) as api:
            assert await api.request("GET", "/api") == b"{}"


async def test_an_exec_plugin_that_fails_is_an_error_and_nobody_is_asked_without_a_credential(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, {"server": "https://127.0.0.1:1"}, plugin(tmp_path, {}, exit_code=3))
    with pytest.raises(KubeconfigError, match="context x gave no credential"):
        await credential(path)


def test_an_access_shows_no_credential() -> None:
    access = Access("https://near", proxy="http://me:c2VjcmV0@proxy")
    assert "c2VjcmV0" not in repr(access)
