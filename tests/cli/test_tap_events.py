"""A tap in the web page: the form, and an entry as cells."""

from __future__ import annotations

import json

import click
import pytest

from cli.errors import CliError
from cli.tap_events import cells, events, selection_of, status
from cli.tapping import Status
from discovery.entries import NAMESPACE, Entry, Place, Selection, Target
from kube.access import Access
from kube.client import HttpApi

ENTRY = Entry(
    time="2026-11-26T12:01:02.123456Z",
    direction="inbound",
    protocol="HTTP/1.1",
    reporter="shop/cart-0",
    source=Place("10.0.0.1:4000", "shop/deployment/web"),
    destination=Place("10.0.0.2:8080", "shop/deployment/cart"),
    latency_ms=1.42,
    received_bytes=200,
    sent_bytes=1000,
    tls=True,
    peer="spiffe://cluster.local/ns/shop/sa/web",
    method="GET",
    authority="cart",
    path="/items",
    status=200,
)


def test_an_empty_form_taps_everything_and_never_without_a_limit() -> None:
    assert selection_of({}) == Selection(Target(NAMESPACE), max_rps=100)
    assert selection_of({"max_rps": ""}).max_rps == 100


def test_every_field_of_the_form_is_a_filter() -> None:
    form = {
        "namespace": "shop",
        "workload": "deploy/web",
        "to": "svc/cart",
        "method": "GET",
        "path": "/a",
        "authority": "cart",
        "tls": "false",
        "max_rps": "7",
    }
    assert selection_of(form) == Selection(
        Target("deployment", "shop", "web"), to=Target("service", "shop", "cart"), method="GET", authority="cart",
        path="/a", tls=False, max_rps=7,
    )  # fmt: skip


@pytest.mark.parametrize(
    "form",
    [
        {"workload": "deploy/web"},
        {"namespace": "shop", "workload": "nonsense/x"},
        {"namespace": "shop", "to": "nothing"},
        {"max_rps": "many"},
        {"max_rps": "nan"},
        {"max_rps": "-1"},
        {"path": "x" * 9000},
        {"namespace": "n" * 300},
    ],
)
async def test_what_makes_no_sense_is_told_and_asks_nobody(form: dict[str, str]) -> None:
    with pytest.raises((CliError, click.UsageError)):
        selection_of(form)
    told = [event async for event in events(HttpApi(Access("http://localhost")), "autotls", form)]
    assert [name for name, _ in told] == ["problem"]
    assert json.loads(told[0][1])


def test_an_entry_becomes_words_and_numbers() -> None:
    assert cells(ENTRY) == {
        "time": "12:01:02.123", "direction": "inbound", "source": "shop/deployment/web",
        "destination": "shop/deployment/cart", "request": "GET cart/items", "status": "200", "latency": "1.4ms",
        "bytes": "1.2kB", "tls": "true", "secure": True, "peer": "spiffe://cluster.local/ns/shop/sa/web",
    }  # fmt: skip


def test_plaintext_says_why_and_a_connection_has_no_request() -> None:
    plain = Entry(ENTRY.time, "outbound", "TCP", "shop/web-0", Place("10.0.0.1:4000"), Place("10.0.0.9:5432"),
                  reason="unreachable", flags=("UF",))  # fmt: skip
    found = cells(plain)
    assert (found["tls"], found["secure"], found["request"], found["status"], found["peer"]) == (
        "unreachable", False, "TCP", "UF", "-",
    )  # fmt: skip


def test_what_a_client_sent_is_harmless_and_has_an_end() -> None:
    hostile = "\x1b[31m\u202e</td>" + "A" * 8192
    entry = Entry(hostile, hostile, hostile, hostile, Place(hostile, hostile), Place(hostile, hostile), path=hostile,
                  authority=hostile, method=hostile, peer=hostile, reason=hostile, flags=(hostile,))  # fmt: skip
    for value in cells(entry).values():
        assert isinstance(value, bool) or (value.isprintable() and len(value) < 700)


def test_status_names_what_was_left_out() -> None:
    assert status(Status()) == ""
    assert status(Status(2, 5, skipped=3, lost=1)) == (
        "5 proxies through 2 replicas, 3 more than the limit were skipped, 1 came too fast and are lost"
    )
