"""The real process of the webhook, `python -m webhook`, for tests."""

import http.client
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.certificates import write_serving_pair
from cluster.ports import reserved

# Deadlines, not measures: far above what a machine that is ten times slower needs.
_DEADLINE_S = 180.0
_ANSWER_S = 60.0


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Polls. Raises AssertionError that says `what` did not come true in time."""
    deadline = time.monotonic() + _DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.1)


@dataclass(frozen=True, slots=True)
class WebhookProcess:
    """A running webhook; `folder` holds its certificate, its configuration and its log."""

    process: "subprocess.Popen[bytes]"
    folder: Path
    port: int
    health_port: int
    tls: ssl.SSLContext

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def bundle(self) -> bytes:
        return (self.folder / "tls.crt").read_bytes()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def health(self, path: str) -> tuple[int, str]:
        """Status and text of a page of the health port; (0, "") when nothing listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}{path}", timeout=_ANSWER_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def connect(self) -> http.client.HTTPSConnection:
        """A connection to send reviews over, kept alive as the API server's are."""
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=_ANSWER_S, context=self.tls)

    def mutate(self, body: bytes, connection: http.client.HTTPSConnection | None = None) -> tuple[bytes, bool]:
        """The answer to a review, and whether the connection ends with it. Raises OSError when there is none."""
        over = connection or self.connect()
        over.request("POST", "/mutate?timeout=5s", body)
        with over.getresponse() as answer:
            found = answer.read(), answer.getheader("connection") == "close"
        if connection is None:
            over.close()
        return found

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_DEADLINE_S)


@contextmanager
def running_webhook(
    folder: Path, kubeconfig: Path, *, shutdown_s: float = 0, config: str = ""
) -> Generator[WebhookProcess]:
    """The process, its health port open; killed on exit if it still runs."""
    with reserved() as port, reserved() as health_port:
        yield from _running(folder, kubeconfig, shutdown_s, (port, health_port))


def _running(folder: Path, kubeconfig: Path, shutdown_s: float, ports: tuple[int, int]) -> Generator[WebhookProcess]:
    tls = write_serving_pair(folder)
    (folder / "config.yaml").write_text("{}")
    port, health_port = ports
    environment = {
        **os.environ,
        "KUBECONFIG": str(kubeconfig),
        "AUTOTLS_CONFIG": str(folder / "config.yaml"),
        "AUTOTLS_WEBHOOK_TLS": str(folder),
        "AUTOTLS_WEBHOOK_PORT": str(port),
        "AUTOTLS_HEALTH_PORT": str(health_port),
        "AUTOTLS_SHUTDOWN_SECONDS": str(shutdown_s),
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "webhook"], env=environment, stdout=log, stderr=log)
    webhook = WebhookProcess(process, folder, port, health_port, tls)
    try:
        wait_until(lambda: webhook.health("/healthz")[0] == 200 or process.poll() is not None, "health port open")
        assert process.poll() is None, webhook.log
        yield webhook
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
