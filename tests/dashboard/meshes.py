"""Snapshots of meshes that do not exist, the same every time."""

import math
from datetime import UTC, datetime, timedelta

from dashboard.model import Certificate, Edge, Figures, NamespaceRow, Snapshot, Workload

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
LEAF_S = 86400.0


def figures(tls: float | None, rps: float | None = 12.0, *, meshed: int = 2, pods: int = 2, **more: object) -> Figures:
    reasons = (("not_meshed", 1 - tls),) if tls is not None and tls < 1 else ()
    values = {"reasons": reasons, "success": 1.0, "p50_us": 1400.0, "p95_us": 9500.0, "p99_us": 23000.0} | more
    return Figures(meshed=meshed, pods=pods, rps=rps, tls=tls, **values)  # pyright: ignore[reportArgumentType]


def workload(key: str, tls: float | None = 1.0, rps: float | None = 12.0, **more: object) -> Workload:
    namespace, kind, name = key.split("/", 2)
    trend = tuple(max(0.0, (rps or 0) * (1 + 0.25 * math.sin(step / 7 + len(name)))) for step in range(120))
    return Workload(key, namespace, kind, name, figures(tls, rps, **more), trend, (tls or 0.0,) * 120)


def edge(client: str, server: str, tls: float | None = 1.0, rps: float = 4.0, reason: str = "not_meshed") -> Edge:
    reasons = ((reason, 1 - tls),) if tls is not None and tls < 1 else ()
    return Edge(client, server, identity(client), identity(server) if tls else "", tls, rps, reasons)


def identity(key: str) -> str:
    parts = key.split("/")
    return f"spiffe://cluster.local/ns/{parts[0]}/sa/{parts[2]}" if len(parts) == 3 else ""


def shop(now: datetime = NOW) -> Snapshot:
    """A small shop with one of everything: TLS, partly, plaintext, no traffic, an outside address."""
    names = {
        "shop/deployment/web": (1.0, 84.2),
        "shop/deployment/cart": (1.0, 40.1),
        "shop/deployment/catalog": (1.0, 62.4),
        "shop/deployment/checkout": (0.87, 12.6),
        "shop/deployment/payment": (1.0, 6.2),
        "shop/deployment/mail": (None, None),
        "data/statefulset/postgres": (0.52, 18.0),
        "data/deployment/redis": (1.0, 55.0),
        "legacy/deployment/billing": (0.0, 3.1),
        "batch/cronjob/report": (None, None),
    }
    unmeshed = {"legacy/deployment/billing": {"meshed": 0}, "data/statefulset/postgres": {"meshed": 1, "unseen": True}}
    workloads = tuple(workload(key, *value, **unmeshed.get(key, {})) for key, value in sorted(names.items()))
    edges = (
        edge("ingress/deployment/gateway", "shop/deployment/web", 1.0, 84.2),
        edge("shop/deployment/web", "shop/deployment/cart", 1.0, 40.1),
        edge("shop/deployment/web", "shop/deployment/catalog", 1.0, 62.4),
        edge("shop/deployment/web", "shop/deployment/checkout", 1.0, 11.0),
        edge("legacy/deployment/billing", "shop/deployment/checkout", 0.0, 1.6, "no_redirect"),
        edge("shop/deployment/checkout", "shop/deployment/payment", 1.0, 6.2),
        edge("shop/deployment/checkout", "data/statefulset/postgres", 0.52, 18.0, "unreachable"),
        edge("shop/deployment/catalog", "data/statefulset/postgres", 1.0, 9.0),
        edge("shop/deployment/cart", "data/deployment/redis", 1.0, 55.0),
        edge("shop/deployment/payment", "legacy/deployment/billing", 0.0, 3.1),
        edge("shop/deployment/payment", "external", 0.0, 0.4, "external"),
        edge("shop/deployment/payment", "shop/deployment/checkout", 1.0, 0.4),
    )
    certificates = (
        Certificate("leaf", "spiffe://cluster.local/ns/shop/sa/web", now + timedelta(hours=7, minutes=4), LEAF_S, 2),
        Certificate("leaf", "spiffe://cluster.local/ns/shop/sa/cart", now + timedelta(hours=15), LEAF_S, 2),
        Certificate("leaf", "spiffe://cluster.local/ns/data/sa/redis", now + timedelta(hours=23), LEAF_S, 1),
        Certificate("leaf", "spiffe://cluster.local/ns/data/sa/postgres", now + timedelta(minutes=100), LEAF_S, 1),
        Certificate("issuer", "autotls issuer", now + timedelta(days=201), 365 * LEAF_S),
        Certificate("root", "autotls root", now + timedelta(days=3486), 3650 * LEAF_S),
    )
    rows = tuple(
        NamespaceRow(name, figures(tls, rps, meshed=meshed, pods=pods))
        for name, tls, rps, meshed, pods in (
            ("batch", None, None, 1, 1),
            ("data", 0.88, 73.0, 3, 4),
            ("legacy", 0.0, 3.1, 0, 2),
            ("shop", 0.992, 205.5, 12, 12),
        )
    )
    reasons = (("unreachable", 0.031), ("not_meshed", 0.011), ("no_redirect", 0.0015), ("external", 0.0005))
    mesh = figures(0.956, 281.6, meshed=16, pods=19, success=0.9987, reasons=reasons)
    trend = tuple(260 + 40 * math.sin(step / 11) for step in range(120))
    notes = ("1 of 16 proxies did not answer: data/postgres-1 (no answer within 4 s)",)
    return Snapshot(now, 30, mesh, workloads, rows, edges, certificates, notes, trend, (0.95,) * 120)


def large(count: int, now: datetime = NOW) -> Snapshot:
    """`count` workloads in ten namespaces, each calling two others."""
    keys = [f"team-{number % 10}/deployment/service-{number:03d}" for number in range(count)]
    shares = [1.0, 1.0, 1.0, 0.93, 0.0, None]
    workloads = tuple(workload(key, shares[number % len(shares)]) for number, key in enumerate(keys))
    edges = tuple(
        edge(keys[number], keys[(number * 7 + step * 13) % count], shares[number % len(shares)])
        for number in range(count)
        for step in (1, 2)
        if (number * 7 + step * 13) % count != number
    )
    rows = tuple(NamespaceRow(f"team-{number}", figures(0.9, 120.0)) for number in range(10))
    leaves = tuple(
        Certificate("leaf", identity(key), now + timedelta(hours=1 + number % 23), LEAF_S)
        for number, key in enumerate(keys)
    )
    mesh = figures(0.9, 1200.0, meshed=count * 2, pods=count * 2)
    return Snapshot(now, 30, mesh, workloads, rows, edges, leaves)
