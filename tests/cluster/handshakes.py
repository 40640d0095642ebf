"""TLS handshakes with servers that silent connections are held to. `handshakes.py COUNT SILENT`, targets on stdin.

It runs in another network (nsenter), so it imports nothing but the standard library. To each target ([address, port])
it opens SILENT connections on which nothing is ever said, then makes COUNT TLS handshakes with each in turn. For each
target it prints a line: the SHA-256 of every certificate that was shown, and the milliseconds from the first packet to
the end of the handshake.
"""

import hashlib
import json
import socket
import ssl
import sys
import time

_TIMEOUT_S = 120


def handshake(address: str, port: int) -> tuple[str, float]:
    context = ssl.create_default_context()
    # Whoever answers: the caller compares the certificate.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    begun = time.monotonic()
    with (
        socket.create_connection((address, port), timeout=_TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname="shop.example") as connection,
    ):
        took = time.monotonic() - begun
        return hashlib.sha256(connection.getpeercert(binary_form=True) or b"").hexdigest(), took * 1000


def main() -> None:
    count, silent = map(int, sys.argv[1:])
    targets = json.load(sys.stdin)
    held = [socket.create_connection(target, timeout=_TIMEOUT_S) for target in targets for _ in range(silent)]
    seen: list[list[tuple[str, float]]] = [[] for _ in targets]
    for _ in range(count):
        for target, found in zip(targets, seen, strict=True):
            found.append(handshake(*target))
    for found in seen:
        print(json.dumps({"certificates": sorted({shown for shown, _ in found}), "ms": [took for _, took in found]}))
    for connection in held:
        connection.settimeout(0)
        try:
            heard = connection.recv(1)
        except BlockingIOError:
            heard = None
        # Still open, and silent on both sides.
        assert heard is None, heard
        connection.close()


if __name__ == "__main__":
    main()
