"""What Envoy's admin interface says, as values. Pure. Source: Envoy 1.40 source/server/admin."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from mesh import series
from telemetry.exposition import parse, series_of
from telemetry.reasons import cluster_label

_COUNTED: Final = series.EXPOSED + series.REQUESTS
_EJECTED: Final = "/failed_outlier_check"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one connection or request was counted as: `tls` and `peer` are empty for plaintext, `reason` for TLS.

    `code` is the HTTP status, or Envoy's response flags for TCP (`-`: nothing went wrong).
    """

    tls: str
    peer: str
    reason: str
    code: str


Counted = Mapping[Outcome, int]


@dataclass(frozen=True, slots=True)
class Host:
    """One address of a cluster. `taken`: connections (TCP) or requests that were given to it since Envoy started."""

    address: str
    taken: int
    failed_connects: int
    ejected: bool
    priority: int


@dataclass(frozen=True, slots=True)
class Leaf:
    """The certificate that Envoy has loaded for its connections to others."""

    uris: tuple[str, ...]
    serial: int
    not_after: datetime


def hosts_path(cluster: str) -> str:
    return f"/clusters?filter={quote('^' + re.escape(cluster) + '$')}"


def parse_hosts(text: str, cluster: str) -> tuple[Host, ...]:
    """The addresses of `cluster` in the text of `/clusters`; IPv6 addresses in brackets, as Envoy writes them."""
    values: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        if not line.startswith(f"{cluster}::"):
            continue
        where, _, value = line.removeprefix(f"{cluster}::").rpartition("::")
        address, _, key = where.rpartition("::")
        if address and address.rpartition(":")[2].isdigit():
            values.setdefault(address, {})[key] = value
    return tuple(
        Host(
            address=address,
            taken=int(found.get("rq_total", "0")),
            failed_connects=int(found.get("cx_connect_fail", "0")),
            ejected=_EJECTED in found.get("health_flags", ""),
            priority=int(found.get("priority", "0")),
        )
        for address, found in values.items()
    )


def counters_path() -> str:
    return f"/stats/prometheus?filter={quote(f'^{series.SCOPE}[.]{series.REQUESTS}[.]')}"


def parse_counted(text: str, cluster: str) -> Counted:
    """How many connections and requests of this pod went to `cluster`, by outcome."""
    counted: Counter[Outcome] = Counter()
    for each in series_of(parse(text.encode())):
        labels = each.labels
        mine = each.name == _COUNTED and labels.get(series.DIR) == series.OUTBOUND
        if mine and labels.get(series.SVC) == cluster:
            known = (labels.get(name, "") for name in (series.TLS, series.PEER, series.REASON, series.CODE))
            counted[Outcome(*known)] += int(each.value)
    return counted


def grown(before: Counted, after: Counted) -> Counted:
    """What was counted in between; a proxy that was restarted began again at zero."""
    return {key: n - before.get(key, 0) for key, n in after.items() if n > before.get(key, 0)}


def listener_path(name: str) -> str:
    return f"/config_dump?resource=dynamic_listeners&name_regex={quote('^' + re.escape(name) + '$')}"


def has_listener(text: str) -> bool:
    """Whether the text of `listener_path` holds one that is in force."""
    return any("active_state" in each for each in _configs(text))


def state_path() -> str:
    return f"/stats?filter={quote('^(control_plane.connected_state|server.(version|uptime|live))$')}"


def parse_numbers(text: str) -> dict[str, int]:
    """`name: value` lines; what is no number is left out."""
    pairs = (line.rpartition(": ")[::2] for line in text.splitlines())
    return {name: int(value) for name, value in pairs if value.isdigit()}


def failures_path(cluster: str) -> str:
    """Of a cluster: why connections by TLS did not come about."""
    name = re.escape(cluster_label(cluster))
    return f"/stats?filter={quote(f'^cluster.{name}.(ssl|upstream_cx|.*secrets_not_ready)')}"


def parse_leaf(text: str) -> Leaf | None:
    """The first chain of `/certs`: a sidecar has one leaf, in each of its TLS contexts. None: it has no files yet."""
    for entry in _list(json.loads(text), "certificates"):
        for chain in _list(entry, "cert_chain"):
            uris = tuple(str(name["uri"]) for name in _list(chain, "subject_alt_names") if "uri" in name)
            ends = datetime.fromisoformat(str(chain["expiration_time"]))
            return Leaf(uris, int(str(chain["serial_number"]), 16), ends)
    return None


def _configs(text: str) -> Iterable[dict[str, Any]]:
    return _list(json.loads(text), "configs")


def _list(value: Any, key: str) -> list[dict[str, Any]]:
    return value.get(key) or []
