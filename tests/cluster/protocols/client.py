"""Speaks every protocol of the traffic matrix, and says what was answered.

It runs in the application container of a client pod (`python3 -c`): the standard library, curl, Debian's
python3-grpcio and python3-websockets. Standard input is a list of jobs, each {"protocol", "host", "port", "marker",
"certificate"}; each gives one line: {"pod", "peer", "echo", "seen", "seconds"} or {"error"}. `seen` has each pod that
answered, with the peer that it saw.
"""

import asyncio
import http.client
import json
import re
import smtplib
import socket
import ssl
import subprocess
import sys
import time
from typing import Any

import grpc
import websockets

# Longer than a busy machine stands still.
_TIMEOUT_S = 120


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def http1(job: dict[str, Any]) -> dict[str, Any]:
    connection = http.client.HTTPConnection(job["host"], job["port"], timeout=_TIMEOUT_S)
    connection.request("GET", f"/{job['marker']}", headers={"X-Marker": job["marker"]})
    answer = connection.getresponse()
    found = json.loads(answer.read())
    connection.close()
    assert answer.status == 200, answer.status
    return {"pod": found["pod"], "peer": found["peer"], "echo": found["path"]}


def http2(job: dict[str, Any]) -> dict[str, Any]:
    url = f"http://{bracketed(job['host'])}:{job['port']}/"
    argv = ["curl", "-sS", "--fail", "--http2-prior-knowledge", "--max-time", str(_TIMEOUT_S)]
    done = subprocess.run([*argv, "-H", f"X-Marker: {job['marker']}", url], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["protocol"] == "HTTP/2.0", found
    return found


async def _grpc(job: dict[str, Any], *kinds: str) -> dict[str, Any]:
    """One call of each kind over one connection of its own; every message of every answer must hold the marker."""
    marker, answers = job["marker"].encode(), []
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(f"{bracketed(job['host'])}:{job['port']}", options=options) as channel:
        for kind in kinds:
            path = f"/matrix.Echo/{kind}"
            if kind == "Unary":
                answers.append(await channel.unary_unary(path)(marker, timeout=_TIMEOUT_S))
            elif kind == "ServerStream":
                answers += [message async for message in channel.unary_stream(path)(marker, timeout=_TIMEOUT_S)]
            elif kind == "ClientStream":
                answers.append(await channel.stream_unary(path)(iter([marker] * 3), timeout=_TIMEOUT_S))
            else:
                call = channel.stream_stream(path)(timeout=_TIMEOUT_S)
                for _ in range(3):
                    # The next message goes out only after the answer to the one before.
                    await call.write(marker)
                    answers.append(await call.read())
                await call.done_writing()
                assert await call.read() is grpc.aio.EOF
    found = [json.loads(message) for message in answers]
    assert all(job["marker"] in each["echo"] for each in found), found
    # A proxy may give each call of a connection to another server.
    return {**found[-1], "seen": sorted({(each["pod"], each["peer"]) for each in found})}


def grpc_unary(job: dict[str, Any]) -> dict[str, Any]:
    return asyncio.run(_grpc(job, "Unary"))


def grpc_streams(job: dict[str, Any]) -> dict[str, Any]:
    return asyncio.run(_grpc(job, "ServerStream", "ClientStream", "BothStreams"))


def websocket(job: dict[str, Any]) -> dict[str, Any]:
    async def talk() -> dict[str, Any]:
        url = f"ws://{bracketed(job['host'])}:{job['port']}/"
        async with websockets.connect(url, open_timeout=_TIMEOUT_S, compression=None) as connection:
            answers = []
            for _ in range(2):
                await connection.send(job["marker"])
                answers.append(json.loads(await asyncio.wait_for(connection.recv(), _TIMEOUT_S)))
            assert answers[0] == answers[1], answers
            return answers[0]

    return asyncio.run(talk())


def raw_bytes(job: dict[str, Any]) -> dict[str, Any]:
    with socket.create_connection((job["host"], job["port"]), timeout=_TIMEOUT_S) as connection:
        # The first byte is none that HTTP could begin with.
        connection.sendall(b"\x01" + job["marker"].encode() + b"\n")
        return json.loads(connection.makefile().readline())


def smtp(job: dict[str, Any]) -> dict[str, Any]:
    """A mail, to a server that says `220 POD ESMTP Exim` before we have said anything."""
    with smtplib.SMTP(local_hostname="client.example", timeout=_TIMEOUT_S) as mail:
        code, banner = mail.connect(job["host"], job["port"])
        assert code == 220, banner
        assert b"ESMTP Exim" in banner, banner
        _, hello = mail.ehlo(f"{job['marker']}.example")
        mail.sendmail("from@example.com", ["to@example.com"], f"Subject: {job['marker']}\r\n\r\n{job['marker']}\r\n")
    # "web-0.pods.shop.svc.cluster.local Hello in-the-clear.example [10.0.0.1]"
    match = re.match(r"([^ .]+)\S* Hello (\S+) \[(.*?)\]", hello.decode())
    assert match, hello
    return {"pod": match[1], "echo": match[2], "peer": match[3]}


def https(job: dict[str, Any]) -> dict[str, Any]:
    """TLS of the application's own: its certificate and no other is accepted."""
    context = ssl.create_default_context(cadata=job["certificate"])
    lines = ("GET / HTTP/1.1", "Host: shop.example", f"X-Marker: {job['marker']}", "Connection: close", "", "")
    with (
        socket.create_connection((job["host"], job["port"]), timeout=_TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname="shop.example") as connection,
    ):
        connection.sendall("\r\n".join(lines).encode())
        return json.loads(connection.makefile().read().partition("\n\n")[2])


_PROTOCOLS = {
    "HTTP/1.1": http1,
    "h2c": http2,
    "gRPC, unary": grpc_unary,
    "gRPC, streams": grpc_streams,
    "WebSocket": websocket,
    "bytes": raw_bytes,
    "SMTP": smtp,
    "SMTP where HTTP is likely": smtp,
    "HTTPS of the app": https,
}


def attempt(job: dict[str, Any]) -> dict[str, Any]:
    begun = time.monotonic()
    try:
        found = _PROTOCOLS[job["protocol"]](job)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    took = round(time.monotonic() - begun, 4)
    return {"seen": [(found["pod"], found["peer"])], **found, "seconds": took}


if __name__ == "__main__":
    for each in json.loads(sys.stdin.read()):
        print(json.dumps(attempt(each)), flush=True)
