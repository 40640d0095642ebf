"""A table of `autotls stat` as text and as JSON. Pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cli.output import harmless
from cli.tables.layout import columns
from telemetry.figures import NONE, duration, percent, rate, shares, size
from telemetry.ledger import Traffic
from telemetry.rows import Kind, Row, Table

HEADER: Final = ("NAME", "MESHED", "SUCCESS", "RPS", "LATENCY_P50", "LATENCY_P95", "LATENCY_P99", "TLS")
WIDE: Final = ("RECEIVED", "SENT", "PLAINTEXT", "PLAINTEXT_PEERS")
_TEXT: Final = frozenset({"NAMESPACE", "NAME", "PLAINTEXT", "PLAINTEXT_PEERS"})
QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_MARK: Final = "*"
_PEERS: Final = 3
_FOOTNOTE: Final = {
    True: "* of what meshed clients sent; what clients without a proxy send to it is not counted",
    False: "* plaintext from clients without a proxy is not counted here, because it passes no proxy that counts it: "
    "set config.autotls.io/inbound: observed to count it",
}


def as_text(table: Table, *, wide: bool, namespaces: bool) -> str:
    """The table, a footnote where a row is not the whole; `namespaces` adds a column for them."""
    marked = any(_is_marked(row) for row in table.rows)
    named = namespaces and table.kind is not Kind.NAMESPACE
    rows = [
        [*([row.namespace] if named else []), *_cells(row, table.seconds, marked), *(_wide(row) if wide else [])]
        for row in table.rows
    ]
    header = (("NAMESPACE",) if named else ()) + HEADER + (WIDE if wide else ())
    lines = columns(header, rows, text=_TEXT)
    if marked:
        lines += ["", _FOOTNOTE[table.kind in (Kind.SERVICE, Kind.AUTHORITY)]]
    return "\n".join(lines) + "\n"


def _is_marked(row: Row) -> bool:
    return row.unseen and row.traffic.tls_share is not None


def _cells(row: Row, seconds: float, marked: bool) -> list[str]:
    total = row.traffic.total
    mark = (_MARK if _is_marked(row) else " ") if marked else ""
    return [
        harmless(row.name, 80),
        NONE if row.total is None else f"{row.meshed}/{row.total}",
        percent(_success(row.traffic)),
        rate(total.requests, seconds) if total.requests else NONE,
        *(duration(total.latency.quantile(q)) for q in QUANTILES.values()),
        percent(row.traffic.tls_share) + mark,
    ]


def _success(traffic: Traffic) -> float | None:
    return traffic.total.succeeded / traffic.total.requests if traffic.total.requests else None


def _wide(row: Row) -> list[str]:
    traffic = row.traffic
    moved = bool(traffic.units)
    return [
        size(traffic.total.received) if moved else NONE,
        size(traffic.total.sent) if moved else NONE,
        _parts(traffic.plaintext) or NONE,
        _parts(traffic.peers, _PEERS) or NONE,
    ]


def _parts(parts: Mapping[str, float], most: int | None = None) -> str:
    shown = list(shares(parts).items())
    text = ", ".join(f"{harmless(name, 60)} {share}" for name, share in shown[:most])
    return f"{text}, …" if most is not None and len(shown) > most else text


def as_json(table: Table, notes: Sequence[str]) -> str:
    """Shares as 0..1, latencies in milliseconds; null where a value has no meaning."""
    return (
        json.dumps(
            {
                "kind": table.kind.value,
                "window_seconds": round(table.seconds, 3),
                "rows": [_object(row, table.seconds) for row in table.rows],
                "notes": list(notes),
            },
            indent=2,
            ensure_ascii=True,
        )
        + "\n"
    )


def _object(row: Row, seconds: float) -> dict[str, Any]:
    traffic, total = row.traffic, row.traffic.total
    quantiles = {name: total.latency.quantile(q) for name, q in QUANTILES.items()}
    return {
        "namespace": row.namespace,
        "name": row.name,
        "meshed": row.meshed,
        "pods": row.total,
        "success": _success(traffic),
        "rps": total.requests / seconds if total.requests else None,
        "latency_ms": {name: value / 1000 if value is not None else None for name, value in quantiles.items()},
        "tls": traffic.tls_share,
        "requests": round(total.requests, 3),
        "connections": round(total.connections, 3),
        "bytes_received": round(total.received, 3),
        "bytes_sent": round(total.sent, 3),
        "plaintext": {name: round(value, 3) for name, value in sorted(traffic.plaintext.items())},
        "plaintext_peers": {name: round(value, 3) for name, value in sorted(traffic.peers.items())},
        "kubelet_probes": round(traffic.probes, 3),
        "unseen_plaintext": row.unseen,
    }
