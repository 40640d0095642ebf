"""What `autotls stat` writes."""

import json
import re

import pytest

from cli.errors import CliError
from cli.resources import Resources, parse_peer, parse_resources
from cli.tables import stat
from telemetry.rows import Kind, Peer, table
from tests.telemetry.scenes import Counters, book_of, cluster_of, deployment_pod, identity, pod_object

WEB, CLIENT = "web-5d4f8c7b9-0", "client-5d4f8c7b9-0"


def shown(
    counters: dict[str, Counters], *, observed: bool = False, wide: bool = False, kind: Kind = Kind.DEPLOYMENT
) -> list[str]:
    pods = [
        deployment_pod("web", "10.0.0.2", observed=observed),
        deployment_pod("client", "10.0.0.3", observed=observed),
    ]
    book = book_of(cluster_of([*pods, pod_object("old", "10.0.0.4", meshed=False)]), counters)
    return stat.as_text(table(kind, book, 10.0), wide=wide, namespaces=False).splitlines()


def test_columns_are_those_that_operators_know_in_that_order() -> None:
    web = Counters().inbound(identity("client"), times=197).inbound(identity("client"), code="500", times=3)
    lines = shown({WEB: web}, observed=True)
    assert lines[0].split() == [
        *("NAME", "MESHED", "SUCCESS", "RPS", "LATENCY_P50", "LATENCY_P95", "LATENCY_P99", "TLS"),
    ]
    assert [line.split() for line in lines[1:]] == [
        ["client", "1/1", "-", "-", "-", "-", "-", "-"],
        ["web", "1/1", "98.50%", "20.0", "3.0ms", "4.8ms", "5.0ms", "100.00%"],
    ]
    ends = [[match.end() for match in re.finditer(r"\S+", line)][1:] for line in lines]
    assert ends[0] == ends[1] == ends[2]


def test_row_that_may_have_had_unseen_plaintext_is_marked_and_the_mark_explained() -> None:
    lines = shown({WEB: Counters().inbound(identity("client"))})
    assert lines[2].endswith(" 100.00%*")
    assert lines[1].endswith(" -")
    assert lines[-1].startswith("* plaintext from clients without a proxy is not counted")


def test_connections_have_neither_success_nor_latency() -> None:
    lines = shown({WEB: Counters().inbound(identity("client"), proto="TCP", port=5432)}, observed=True)
    assert lines[2].split() == ["web", "1/1", "-", "-", "-", "-", "-", "100.00%"]


def test_wide_names_bytes_reasons_and_peers() -> None:
    web = Counters().inbound(identity("client"), times=2).plaintext("10.0.0.4", times=2)
    lines = shown({WEB: web}, observed=True, wide=True)
    assert lines[0].split()[8:] == ["RECEIVED", "SENT", "PLAINTEXT", "PLAINTEXT_PEERS"]
    assert lines[2].split()[7:] == ["50.00%", "400B", "4.0kB", "not_meshed", "100.0%", "shop/pod/old", "100.0%"]


def test_names_from_the_wire_cannot_act_on_the_terminal() -> None:
    client = Counters().outbound("shop/deployment/web", authority="\x1b[2Jevil\r\n\u202e" + "x" * 64)
    text = "\n".join(shown({CLIENT: client}, kind=Kind.AUTHORITY))
    assert "\\x1b[2Jevil" in text
    assert all(char.isprintable() or char == "\n" for char in text)


def test_json_has_exact_numbers_and_null_for_what_has_no_meaning() -> None:
    web = Counters().inbound(identity("client"), times=3).plaintext("10.0.0.4")
    cluster = cluster_of([deployment_pod("web", "10.0.0.2", observed=True), deployment_pod("idle", "10.0.0.3")])
    found = json.loads(stat.as_json(table(Kind.DEPLOYMENT, book_of(cluster, {WEB: web}), 10.0), ["a note"]))
    idle, row = found["rows"]
    assert (found["kind"], found["window_seconds"], found["notes"]) == ("deployment", 10.0, ["a note"])
    assert (row["requests"], row["connections"], row["tls"], row["plaintext"]) == (3, 1, 0.75, {"not_meshed": 1})
    assert [idle[key] for key in ("success", "rps", "tls")] == [None] * 3
    assert idle["unseen_plaintext"] and not row["unseen_plaintext"]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ((), Resources(Kind.DEPLOYMENT)),
        (("deploy",), Resources(Kind.DEPLOYMENT)),
        (("deploy/web",), Resources(Kind.DEPLOYMENT, ("web",))),
        (("po", "a", "b"), Resources(Kind.POD, ("a", "b"))),
        (("Authorities",), Resources(Kind.AUTHORITY)),
    ],
)
def test_resources_are_named_as_kubectl_names_them(words: tuple[str, ...], wanted: Resources) -> None:
    assert parse_resources(words) == wanted


@pytest.mark.parametrize("words", [("widget",), ("deploy/",), ("deploy/a", "b")])
def test_what_names_no_resource_is_refused_with_a_hint(words: tuple[str, ...]) -> None:
    with pytest.raises(CliError) as caught:
        parse_resources(words)
    assert caught.value.hint


def test_peer_is_one_object() -> None:
    assert parse_peer("sts/db", "shop") == Peer(Kind.STATEFULSET, "shop", "db")
    assert parse_peer("ns/shop", "other") == Peer(Kind.NAMESPACE, "", "shop")
    assert parse_peer("2001:DB8::1", "shop") == Peer(None, "", "2001:db8::1")
    for text in ("deploy", "au/web.shop", "deploy/"):
        with pytest.raises(CliError):
            parse_peer(text, "shop")
