"""The page server in the pod."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace

import httpx
import pytest

from dashboard.app import FRONTED_HEADER, build_app
from dashboard.model import Edge, Figures, NamespaceRow, Snapshot, Workload
from tests.dashboard import meshes

PAGES = ("/", "/topology", "/workloads", "/workloads/shop/deployment/checkout", "/certificates", "/tap", "/findings")
HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m\u202e\x00" + "A" * 8192


class Client:
    """Asks the application in this process."""

    def __init__(self, snapshot: Snapshot | None, headers: dict[str, str]) -> None:
        self._app, self._headers = build_app(lambda: snapshot or meshes.shop(), lambda: meshes.NOW), headers

    def get(self, path: str, params: dict[str, str] | None = None) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as session:
                return await session.get(path, params=params, headers=self._headers)

        return asyncio.run(ask())


def client(snapshot: Snapshot | None = None, **headers: str) -> Client:
    return Client(snapshot, headers)


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_whole_without_script_and_asks_for_nothing_inline_or_foreign(path: str) -> None:
    answer = client().get(path)
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    html = answer.text
    assert not re.search(r"<[a-z]+[^>]*\s(style|on[a-z]+)=", html)
    assert not re.search(r"<script(?![^>]*\ssrc=\"/static/)", html)
    assert not re.search(r"(src|href|action)=\"(?!/|#|\?)", html)
    ids = re.findall(r"\sid=\"([^\"]*)\"", html)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.7:8080", "", "[", "localhost.evil"])
def test_another_name_for_this_machine_is_refused(host: str) -> None:
    assert client(Host=host).get("/").status_code == 421


@pytest.mark.parametrize("host", ["localhost", "localhost:9999", "127.0.0.1:1", "[::1]:8080"])
def test_any_port_of_the_loopback_may_be_forwarded(host: str) -> None:
    assert client(Host=host).get("/").status_code == 200


def test_tap_and_findings_are_offered_only_through_the_command() -> None:
    for path, control in (("/tap", "tap-start"), ("/findings", "data-load")):
        assert control not in client().get(path).text
        assert "autotls dashboard" in client().get(path).text
        assert control in client(**{FRONTED_HEADER: "1"}).get(path).text


def test_what_is_not_there_is_said() -> None:
    for path in ("/nothing", "/workloads/shop/deployment/none", "/static/../app.py", "/static/nothing.js"):
        assert client().get(path).status_code == 404


@pytest.mark.parametrize("path", ["/", "/topology", "/workloads", "/certificates"])
def test_a_mesh_that_was_not_looked_at_yet_has_pages(path: str) -> None:
    empty = Snapshot(meshes.NOW, 0.0, Figures(), notes=("not yet",))
    assert "not yet" in client(empty).get(path).text


def test_text_from_the_wire_is_shown_escaped_printable_and_cut() -> None:
    key = f"shop/deployment/{HOSTILE}"
    hostile = replace(
        meshes.shop(),
        workloads=(Workload(key, "shop", "deployment", HOSTILE, meshes.figures(0.5, reasons=((HOSTILE, 0.5),))),),
        namespaces=(NamespaceRow(HOSTILE, meshes.figures(0.5)),),
        edges=(Edge(HOSTILE, key, HOSTILE, HOSTILE, 0.5, 1.0, ((HOSTILE, 0.5),)),),
        notes=(HOSTILE,),
    )
    for path in ("/", "/topology", "/workloads", "/certificates"):
        html = client(hostile).get(path, params={"q": "", "namespace": ""}).text
        assert "<script>alert" not in html
        assert not set(html) & {"\x1b", "\u202e", "\x00"}
        assert "A" * 400 not in html
    html = client().get("/workloads", params={"q": HOSTILE, "namespace": HOSTILE, "sort": HOSTILE}).text
    assert "<script>alert" not in html and "\x1b" not in html


def test_numbers_are_worded_as_stat_words_them() -> None:
    row = re.search(r'<tr id="w-data/statefulset/postgres">.*?</tr>', client().get("/workloads").text, re.DOTALL)
    assert row is not None
    cells = re.sub(r"<[^>]+>", " ", row.group()).split()
    assert {"1/2", "100.00%", "18.0", "1.4ms", "9.5ms", "23ms", "52.00%", "*", "48.00%"} <= set(cells)
    quiet = re.search(r'<tr id="w-shop/deployment/mail">.*?</tr>', client().get("/workloads").text, re.DOTALL)
    assert quiet is not None and ">-<" in quiet.group()
