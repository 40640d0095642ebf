"""What `autotls edges` writes."""

import json

from cli.tables import edges as tables
from telemetry.edges import Edge, edges
from tests.telemetry.scenes import Counters, book_of, cluster_of, deployment_pod, identity


def some() -> tuple[Edge, ...]:
    client = Counters().outbound("shop/deployment/web", peer=identity("web"), times=30)
    client.outbound("203.0.113.9:443", tls=False, svc="passthrough", proto="TCP", times=5)
    pods = [deployment_pod("web", "10.0.0.2"), deployment_pod("client", "10.0.0.3")]
    return edges(book_of(cluster_of(pods), {"client-5d4f8c7b9-0": client}))


def test_table_has_short_identities_and_the_reason_of_plaintext() -> None:
    lines = tables.as_text(some(), 10.0, wide=False, complete=False).splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["CLIENT", "SERVER", "CLIENT_ID", "SERVER_ID", "PROTOCOL", "TLS", "PLAINTEXT"],
        ["shop/deployment/client", "203.0.113.9:443", "-", "-", "TCP", "0.00%", "external", "100.0%"],
        ["shop/deployment/client", "shop/deployment/web", "shop/client", "shop/web", "HTTP/1.1", "100.00%", "-"],
    ]
    assert lines[-1].startswith("clients without a proxy are shown only where")


def test_wide_has_whole_identities_and_rates() -> None:
    line = tables.as_text(some(), 10.0, wide=True, complete=True).splitlines()[2].split()
    assert line[2:4] == [identity("client"), identity("web")]
    assert line[-3:] == ["3.0", "3.0kB", "30.0kB"]


def test_json_has_exact_numbers() -> None:
    found = json.loads(tables.as_json(some(), 10.0, ["a note"]))
    outside, inside = found["edges"]
    assert found["notes"] == ["a note"]
    assert (outside["tls"], outside["plaintext"], outside["connections"]) == (0.0, {"external": 5}, 5)
    assert (inside["tls"], inside["requests"], inside["server_identities"]) == (1.0, 30, [identity("web")])
