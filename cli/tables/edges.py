"""The edges of the mesh as text and as JSON. Pure."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from cli.output import harmless
from cli.tables.layout import columns
from telemetry.edges import Edge
from telemetry.figures import NONE, percent, rate, shares, size

HEADER: Final = ("CLIENT", "SERVER", "CLIENT_ID", "SERVER_ID", "PROTOCOL", "TLS", "PLAINTEXT")
WIDE: Final = ("RPS", "RECEIVED", "SENT")
_TEXT: Final = frozenset({*HEADER}) - {"TLS"}
_FOOTNOTE: Final = (
    "clients without a proxy are shown only where the server observes plaintext (config.autotls.io/inbound)"
)


def as_text(found: Sequence[Edge], seconds: float, *, wide: bool, complete: bool) -> str:
    """`complete`: every proxy observes plaintext, so no client is unseen. Identities in full where it is `wide`."""
    rows = [[*_cells(edge, wide=wide), *(_wide(edge, seconds) if wide else ())] for edge in found]
    lines = columns(HEADER + (WIDE if wide else ()), rows, text=_TEXT)
    if not complete:
        lines += ["", _FOOTNOTE]
    return "\n".join(lines) + "\n"


def _cells(edge: Edge, *, wide: bool) -> list[str]:
    reasons = ", ".join(f"{name} {share}" for name, share in shares(edge.traffic.plaintext).items())
    return [
        harmless(edge.client.name, 80),
        harmless(edge.server.name, 80),
        _identities(edge.client_identities, full=wide),
        _identities(edge.server_identities, full=wide),
        ",".join(sorted(edge.protocols)) or NONE,
        percent(edge.traffic.tls_share),
        reasons or NONE,
    ]


def _identities(found: Iterable[str], *, full: bool) -> str:
    return ", ".join(each if full else _short(each) for each in sorted(found)) or NONE


def _short(spiffe_id: str) -> str:
    """`shop/web` for `spiffe://cluster.local/ns/shop/sa/web`; whatever is no such identity as it is."""
    parts = spiffe_id.split("/")
    return f"{parts[4]}/{parts[6]}" if len(parts) == 7 else spiffe_id


def _wide(edge: Edge, seconds: float) -> list[str]:
    total = edge.traffic.total
    return [rate(total.requests, seconds) if total.requests else NONE, size(total.received), size(total.sent)]


def as_json(found: Sequence[Edge], seconds: float, notes: Sequence[str]) -> str:
    """Shares as 0..1; null where a value has no meaning."""
    body = {"window_seconds": round(seconds, 3), "edges": [_object(edge) for edge in found], "notes": list(notes)}
    return json.dumps(body, indent=2) + "\n"


def _object(edge: Edge) -> dict[str, Any]:
    traffic = edge.traffic
    return {
        "client": edge.client.name,
        "server": edge.server.name,
        "client_identities": sorted(edge.client_identities),
        "server_identities": sorted(edge.server_identities),
        "protocols": sorted(edge.protocols),
        "tls": traffic.tls_share,
        "plaintext": {name: round(value, 3) for name, value in sorted(traffic.plaintext.items())},
        "requests": round(traffic.total.requests, 3),
        "connections": round(traffic.total.connections, 3),
        "bytes_received": round(traffic.total.received, 3),
        "bytes_sent": round(traffic.total.sent, 3),
    }
