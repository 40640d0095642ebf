"""What each proxy says of itself on its port 15120, asked for through the API server's pod proxy."""

import asyncio
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cli.checks.view import View
from cli.checks.workload import is_injected, runs
from kube.errors import ApiError, ForbiddenError
from mesh import names
from mesh.pod import Pod

_CONCURRENCY: Final = 16
_TIMEOUT_S: Final = 10.0
# Envoy matches it against its own names of the series; an answer without it is a hundred times as large.
_FILTER: Final = r"^(control_plane\.connected_state|listener\.inbound_mtls\.ssl\.certificate\.leaf\.|server\.uptime)"
_VALUE: Final = r"(?:\{[^}\n]*\})? (\d+)"
_CONNECTED: Final = re.compile(rf"^envoy_control_plane_connected_state{_VALUE}", re.MULTILINE)
_UPTIME: Final = re.compile(rf"^envoy_server_uptime{_VALUE}", re.MULTILINE)
_LEAF_ENDS: Final = re.compile(
    r'^envoy_listener_ssl_certificate_expiration_unix_time_seconds\{[^}\n]*envoy_tls_certificate="leaf"[^}\n]*\} (\d+)',
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Proxy:
    """One running proxy; `fault` says why it did not answer. `leaf_ends` None: it has no certificate."""

    pod: Pod
    fault: str = ""
    connected: bool = False
    uptime_s: int = 0
    leaf_ends: datetime | None = None

    @property
    def name(self) -> str:
        return f"pod {self.pod.metadata.namespace}/{self.pod.metadata.name}"


def parse_metrics(pod: Pod, text: str) -> Proxy:
    """From the text of `/metrics`."""
    connected, uptime = _CONNECTED.search(text), _UPTIME.search(text)
    # Envoy says 0, or the largest number, for a certificate that it does not have.
    ends = [int(number) for number in _LEAF_ENDS.findall(text)]
    known = [end for end in ends if 0 < end < 1 << 40]
    return Proxy(
        pod,
        connected=connected is not None and connected[1] != "0",
        uptime_s=int(uptime[1]) if uptime else 0,
        leaf_ends=datetime.fromtimestamp(min(known), UTC) if known else None,
    )


async def read_proxies(view: View) -> tuple[Proxy, ...]:
    """Every proxy that runs, each asked once. Raises ForbiddenError; other faults are the proxy's own."""

    async def read() -> tuple[Proxy, ...]:
        gate = asyncio.Semaphore(_CONCURRENCY)
        pods = [pod for pod in await view.pods() if is_injected(pod) and runs(pod)]
        return tuple(await asyncio.gather(*(_ask(view, pod, gate) for pod in pods)))

    return await view.once("proxies", read)


async def _ask(view: View, pod: Pod, gate: asyncio.Semaphore) -> Proxy:
    where = f"/api/v1/namespaces/{pod.metadata.namespace}/pods/{pod.metadata.name}:{names.STATUS_PORT}/proxy/metrics"
    async with gate:
        try:
            answer = await view.api.request("GET", where, query=(("filter", _FILTER),), timeout_s=_TIMEOUT_S)
        except ForbiddenError:
            raise
        except ApiError as error:
            return Proxy(pod, fault=error.message)
    return parse_metrics(pod, answer.decode(errors="replace"))
