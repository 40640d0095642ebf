#!/usr/bin/python3
"""A small HTTP server that says who it is and who asked. `testbox-server [PORT]`, 8080 by default, IPv4 and IPv6."""

import json
import os
import signal
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType


class Handler(BaseHTTPRequestHandler):
    """Answers every GET with one JSON object."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        peer = str(self.client_address[0]).removeprefix("::ffff:")
        answer = {"pod": socket.gethostname(), "peer": peer, "path": self.path, "headers": dict(self.headers)}
        body = json.dumps(answer).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """Takes both address families on one socket, and a plain IPv4 one where the kernel has no IPv6."""

    address_family = socket.AF_INET6 if os.path.exists("/proc/net/if_inet6") else socket.AF_INET  # noqa: PTH110
    daemon_threads = True
    # What servers have (SOMAXCONN was 128 for decades); Python's 5 is full when the process waits for a processor.
    request_queue_size = 128

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def end(_number: int, _frame: FrameType | None) -> None:
    # As process 1 of a container, SIGTERM does nothing unless it is handled.
    raise SystemExit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    Server(("", port), Handler).serve_forever()
