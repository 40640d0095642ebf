"""A peer of the mesh as a program: dials pods, with a ServiceAccount's identity or in plaintext.

It runs in the network of the node or of a pod (nsenter), so it imports nothing but the standard library.
`caller.py once` reads a list of jobs from standard input and prints a JSON line for each. `caller.py watch FILE` reads
one job, repeats it every quarter of a second until it is ended, and appends a line for each try to FILE.

A job: address, port, host (Host header); `identity`: a folder with tls.crt, tls.key and ca.crt, or null for plaintext;
`certificate` false leaves out our own certificate; `target` is the server name (null: none), `alpn` our protocol;
`keep` makes every try of a watch use one and the same connection.
"""

import json
import socket
import ssl
import sys
import time
from pathlib import Path
from typing import Any

# Longer than a busy machine stands still.
_TIMEOUT_S = 120.0
_PERIOD_S = 0.25
_REQUEST = "GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"


def connect(job: dict[str, Any]) -> socket.socket:
    plain = socket.create_connection((job["address"], job["port"]), timeout=_TIMEOUT_S)
    if not job.get("identity"):
        return plain
    folder = Path(job["identity"])
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    context.check_hostname = False  # the peer's name is a URI, which the caller compares
    context.set_alpn_protocols([job.get("alpn", "autotls-http")])
    if job.get("certificate", True):
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    # The server name is the port that the peer's application listens on.
    target = job.get("target", 8080)
    return context.wrap_socket(plain, server_hostname=None if target is None else str(target))


def ask(connection: socket.socket, job: dict[str, Any]) -> int:
    """The status of the answer to one GET; reads its body, so that the connection can be used again."""
    connection.sendall(_REQUEST.format(host=job.get("host", "server")).encode())
    received = b""
    while b"\r\n\r\n" not in received:
        received += _receive(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    length = next((int(line.split(":")[1]) for line in lines if line.startswith("content-length:")), 0)
    while len(body) < length:
        body += _receive(connection)
    return int(lines[0].split()[1])


def _receive(connection: socket.socket) -> bytes:
    received = connection.recv(65536)
    if not received:
        raise ConnectionError("closed by the peer")
    return received


def describe(connection: socket.socket) -> dict[str, Any]:
    if not isinstance(connection, ssl.SSLSocket):
        return {}
    certificate: dict[str, Any] = connection.getpeercert() or {}
    uris = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
    return {"serial": certificate.get("serialNumber"), "peer": uris[0] if len(uris) == 1 else uris}


def attempt(job: dict[str, Any]) -> dict[str, Any]:
    try:
        with connect(job) as connection:
            return {"status": ask(connection, job), **describe(connection)}
    except OSError as error:
        return {"error": f"{type(error).__name__}: {error}"}


def watch(job: dict[str, Any], path: Path) -> None:
    kept: socket.socket | None = None
    with path.open("a", buffering=1) as lines:
        while True:
            if job.get("keep"):
                try:
                    kept = kept or connect(job)
                    answer: dict[str, Any] = {"status": ask(kept, job)}
                except OSError as error:
                    kept, answer = None, {"error": f"{type(error).__name__}: {error}"}
            else:
                answer = attempt(job)
            lines.write(json.dumps({"at": time.time(), **answer}) + "\n")
            time.sleep(_PERIOD_S)


def main() -> None:
    if sys.argv[1] == "watch":
        watch(json.loads(sys.stdin.read()), Path(sys.argv[2]))
    for job in json.loads(sys.stdin.read()):
        print(json.dumps(attempt(job)), flush=True)


if __name__ == "__main__":
    main()
