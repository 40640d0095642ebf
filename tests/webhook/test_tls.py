"""The serving certificate changes under live connections."""

import asyncio
import contextlib
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from bench.certificates import write_serving_pair
from webhook.tls import CertificateError, ServingCertificate


def write_pair(folder: Path, name: str) -> ssl.SSLContext:
    """A pair as the kubelet writes a Secret volume: a new timestamped folder, then one swap of `..data`."""
    version = folder / f"..{name}"
    version.mkdir(parents=True)
    trusting = write_serving_pair(version, common_name=name)
    swap(folder, version)
    return trusting


def swap(folder: Path, version: Path) -> None:
    temporary = folder / "..data_tmp"
    temporary.symlink_to(version.name)
    temporary.replace(folder / "..data")


def names_of(writer: asyncio.StreamWriter) -> str:
    certificate = writer.get_extra_info("ssl_object").getpeercert()
    return dict(pair for item in certificate["subject"] for pair in item)["commonName"]


@contextlib.asynccontextmanager
async def echo_server(certificate: ServingCertificate) -> AsyncIterator[int]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=certificate.server_context())
    async with server:
        yield server.sockets[0].getsockname()[1]


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(b"hello\n")
    return await asyncio.wait_for(reader.readline(), 60)


@pytest.mark.parametrize("server_name", ["localhost", "127.0.0.1"], ids=["with SNI", "without SNI"])
async def test_new_connections_get_the_new_certificate_and_old_ones_stay(tmp_path: Path, server_name: str) -> None:
    old_trust = write_pair(tmp_path, "old")
    certificate = ServingCertificate(tmp_path)
    assert certificate.load()
    async with echo_server(certificate) as port:
        old = await asyncio.open_connection("127.0.0.1", port, ssl=old_trust, server_hostname=server_name)
        assert names_of(old[1]) == "old"
        new_trust = write_pair(tmp_path, "new")
        assert certificate.load()
        new = await asyncio.open_connection("127.0.0.1", port, ssl=new_trust, server_hostname=server_name)
        assert names_of(new[1]) == "new"
        assert await ask(*old) == b"hello\n"
        assert await ask(*new) == b"hello\n"
        for _, writer in (old, new):
            writer.close()


async def test_pair_that_does_not_match_is_refused_and_the_old_one_still_serves(tmp_path: Path) -> None:
    trust = write_pair(tmp_path, "old")
    certificate = ServingCertificate(tmp_path)
    certificate.load()
    write_pair(tmp_path, "other")
    mixed = tmp_path / "..mixed"
    mixed.mkdir()
    shutil.copy(tmp_path / "..old" / "tls.crt", mixed)
    shutil.copy(tmp_path / "..other" / "tls.key", mixed)
    swap(tmp_path, mixed)
    with pytest.raises(CertificateError, match="do not match"):
        certificate.load()
    async with echo_server(certificate) as port:
        connection = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
        assert await ask(*connection) == b"hello\n"
        connection[1].close()


@pytest.mark.parametrize("damage", ["missing", "empty", "garbage"])
def test_damaged_files_keep_the_old_pair_and_quote_nothing(tmp_path: Path, damage: str) -> None:
    write_pair(tmp_path, "old")
    certificate = ServingCertificate(tmp_path)
    certificate.load()
    not_after = certificate.not_after
    broken = tmp_path / "..broken"
    broken.mkdir()
    if damage != "missing":
        (broken / "tls.crt").write_text("" if damage == "empty" else "hunter2")
        (broken / "tls.key").write_text("hunter2")
    swap(tmp_path, broken)
    with pytest.raises(CertificateError) as error:
        certificate.load()
    assert "hunter2" not in str(error.value)
    assert certificate.loaded
    assert certificate.not_after == not_after


def test_unchanged_files_are_not_loaded_again(tmp_path: Path) -> None:
    write_pair(tmp_path, "only")
    certificate = ServingCertificate(tmp_path)
    assert certificate.load()
    assert not certificate.load()


def test_plain_folder_serves_as_well(tmp_path: Path) -> None:
    write_serving_pair(tmp_path)
    assert ServingCertificate(tmp_path).load()


async def test_handshake_without_a_certificate_fails_cleanly(tmp_path: Path) -> None:
    trust = write_pair(tmp_path / "later", "later")
    certificate = ServingCertificate(tmp_path / "nothing")
    async with echo_server(certificate) as port:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", port, ssl=trust)


async def test_watch_counts_failures_and_takes_up_what_comes_later(tmp_path: Path) -> None:
    folder = tmp_path / "secret"
    certificate = ServingCertificate(folder)
    failures = REGISTRY.get_sample_value("autotls_webhook_certificate_loads_total", {"outcome": "failed"}) or 0
    rounds: list[float] = []

    async def sleep(seconds: float) -> None:
        rounds.append(seconds)
        if len(rounds) == 2:
            write_pair(folder, "first")
        if len(rounds) == 3:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await certificate.watch(poll_s=7, sleep=sleep)
    assert rounds == [7, 7, 7]
    assert certificate.loaded
    assert certificate.not_after is not None
    assert REGISTRY.get_sample_value("autotls_webhook_certificate_loads_total", {"outcome": "failed"}) == failures + 2
    gauge = REGISTRY.get_sample_value("autotls_webhook_certificate_not_after_timestamp_seconds")
    assert gauge == certificate.not_after.timestamp()


def test_representation_shows_no_key(tmp_path: Path) -> None:
    write_pair(tmp_path, "only")
    certificate = ServingCertificate(tmp_path)
    certificate.load()
    key = (tmp_path / "..data" / "tls.key").read_text()
    assert not any(line in repr(certificate) for line in key.splitlines()[1:])
