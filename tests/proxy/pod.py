"""The proxy's container, as near as it gets without a container runtime.

Own network, mount and process namespaces; the scripts at the paths of the image; a read-only root file system;
uid 2102 without any capability; the identity folder and /run/autotls mounted where the webhook mounts them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sysconfig
from pathlib import Path
from typing import Self

from tests.proxy.namespaces import ANSWER_S, WITHIN_S, Network, eventually, http_answer, http_get

REPOSITORY = Path(__file__).resolve().parents[2]
ENVOY = Path(sysconfig.get_path("purelib")) / "envoy" / "_bin" / "envoy"

_ENTER = """
set -eu
mount -t tmpfs tmpfs /usr/local && mkdir -p /usr/local/bin /usr/local/lib/autotls
mount -t tmpfs tmpfs /run && mkdir -p /run/autotls /run/secrets/autotls.io
touch /usr/local/bin/envoy && mount --bind "$ENVOY" /usr/local/bin/envoy
cp "$PROXY"/autotls-* /usr/local/bin/
cp -r "$PROXY"/settings.sh "$PROXY"/bootstrap.yaml.in "$PROXY"/sds /usr/local/lib/autotls/
mount -t tmpfs tmpfs /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9
touch /dev/termination-log && mount --bind "$MESSAGE" /dev/termination-log
mount --bind "$RUN" /run/autotls
mount --bind "$IDENTITY" /run/secrets/autotls.io
mount -o remount,bind,ro /run/secrets/autotls.io
mount -o remount,ro /usr/local
mount -o remount,bind,ro /
unset ENVOY PROXY RUN IDENTITY MESSAGE
exec "$@"
"""
_AS_PROXY = ("setpriv", "--reuid=2102", "--regid=2102", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all",
             "--no-new-privs")  # fmt: skip
_AS_INIT = ("setpriv", "--bounding-set=-all,+net_admin,+net_raw", "--inh-caps=-all", "--no-new-privs")


class Pod:
    """One pod: its network, its identity folder, and the containers of the proxy image when they are started."""

    def __init__(
        self,
        network: Network,
        folder: Path,
        settings: dict[str, str] | None = None,
        *,
        envoy: Path = ENVOY,
        proxy: Path = REPOSITORY / "proxy",
    ) -> None:
        self.network = network
        self._envoy, self._proxy = envoy, proxy
        self.identity = folder / "identity"
        self.run_folder = folder / "run"
        self.log_path = folder / "proxy.log"
        self.message = folder / "termination-log"
        self.identity.mkdir(parents=True)
        self.run_folder.mkdir()
        self.run_folder.chmod(0o777)
        self.message.touch()
        self.message.chmod(0o666)
        self.identity.chmod(0o755)
        self._settings = {"AUTOTLS_POD_NAME": "test-0", "AUTOTLS_POD_NAMESPACE": "test", **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self.running:
            # Killing PID 1 ends its process namespace. (unshare --kill-child does not: its death signal is cleared when
            # setpriv changes the uid.)
            with contextlib.suppress(OSError):
                self._signal(signal.SIGKILL)
            self._process.wait(WITHIN_S)

    def _command(self, user: tuple[str, ...], *command: str, pid_namespace: bool = False) -> list[str]:
        processes = ["--pid", "--fork", "--mount-proc"] if pid_namespace else []
        return ["ip", "netns", "exec", self.network.namespace, "unshare", "--mount", *processes,
                "bash", "-c", _ENTER, "enter", *user, *command]  # fmt: skip

    def _environment(self) -> dict[str, str]:
        paths = {"ENVOY": str(self._envoy), "PROXY": str(self._proxy), "RUN": str(self.run_folder),
                 "IDENTITY": str(self.identity), "MESSAGE": str(self.message)}  # fmt: skip
        return {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", **paths, **self._settings}

    def start(self, *, until_ready: bool = True, before: tuple[str, ...] = ()) -> Self:
        """Starts the sidecar; `before` is a command that ends in executing its arguments."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(_AS_PROXY, *before, "autotls-proxy", pid_namespace=True),
                env=self._environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        eventually(lambda: self.main_pid, what="the container's first process")
        if until_ready:
            eventually(lambda: self.status("/ready")[0] == 200, what="ready")
        return self

    def init(self) -> subprocess.CompletedProcess[str]:
        """Runs the redirect container to its end."""
        return self._once(_AS_INIT, "autotls-init")

    def init_without_privileges(self) -> subprocess.CompletedProcess[str]:
        return self._once(_AS_PROXY, "autotls-init")

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Runs the postStart hook to its end."""
        return self._once(_AS_PROXY, "autotls-wait")

    def _once(self, user: tuple[str, ...], name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(user, name), env=self._environment(), capture_output=True, text=True, timeout=WITHIN_S,
            check=False,
        )  # fmt: skip

    def status(self, path: str, method: str = "GET", address: str = "127.0.0.1") -> tuple[int, str]:
        return http_get(self.network, address, 15120, path, method)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples with that name and these labels."""
        total = 0.0
        for line in self.status("/metrics")[1].splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.split("{")[0] == name and all(f'{k}="{v}"' in sample for k, v in labels.items()):
                total += float(value)
        return total

    def admin(self, path: str) -> str:
        """What Envoy's admin interface answers, from its main thread."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_S)
            connection.connect(str(self.run_folder / "admin.sock"))
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n".encode())
            status, _, body = http_answer(connection)
        assert status == 200, body
        return body

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def main_pid(self) -> int:
        """PID 1 of the container, as this machine numbers it; ProcessLookupError while there is none."""
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if not children:
            # Not 0: a signal to pid 0 is one to the tests themselves.
            raise ProcessLookupError(f"no container under {pid}")
        return int(children[0])

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self.main_pid, number)

    def children(self) -> list[int]:
        main = self.main_pid
        return [int(child) for child in Path(f"/proc/{main}/task/{main}/children").read_text().split()]

    @property
    def envoy_pid(self) -> int:
        pids = [pid for pid in self.children() if Path(f"/proc/{pid}/comm").read_text().strip() == "envoy"]
        assert len(pids) == 1, pids
        return pids[0]

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def exit_status(self, within_s: float = WITHIN_S) -> int:
        """How the container ended."""
        assert self._process is not None
        return self._process.wait(within_s)
