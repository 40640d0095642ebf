"""The pages in a real browser, with everything behind them real but the API server and the proxies."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.dashboard import fleet, live
from tests.dashboard.live import KEY, Live

pytestmark = pytest.mark.browser

VIEWS = ("Overview", "Topology", "Workloads", "Tap", "Certificates", "Findings")
# Live updates come every five seconds; nothing here depends on when.
TIMEOUT_MS = 120_000
expect.set_options(timeout=TIMEOUT_MS)


@pytest.fixture(scope="module")
def shop() -> Iterator[Live]:
    with live.started(fleet.shop()) as running:
        yield running


@pytest.fixture
def page(chromium: Browser, shop: Live) -> Iterator[Page]:
    """A page that has been let in. Whatever the browser complains about fails the test."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
    context.set_default_timeout(TIMEOUT_MS)
    opened = context.new_page()
    complaints: list[str] = []
    strangers: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda line: complaints.append(line.text) if "Content Security Policy" in line.text else None)
    opened.on("request", lambda asked: None if asked.url.startswith(shop.url) else strangers.append(asked.url))
    opened.goto(f"{shop.url}/?key={KEY}")
    yield opened
    context.close()
    assert complaints == []
    assert strangers == []


def test_every_view_opens_from_the_navigation(page: Page) -> None:
    for view in VIEWS:
        page.get_by_role("link", name=view, exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_contain_text(view)
        expect(page.get_by_role("link", name=view, exact=True)).to_have_attribute("aria-current", "page")


def test_overview_tells_the_share_the_reasons_and_the_namespaces(page: Page) -> None:
    expect(page.locator("#mesh-tls")).to_have_text(re.compile(r"9\d\.\d\d%"))
    expect(page.locator("#reason-not_meshed")).to_be_visible()
    expect(page.locator("#ns-shop")).to_contain_text("6/6")
    expect(page.locator("#notes")).to_contain_text("is not counted here")


def test_topology_tells_tls_and_plaintext_apart_without_colour(page: Page, shop: Live) -> None:
    page.goto(f"{shop.url}/topology")
    expect(page.locator("g.node")).to_have_count(9 + 1)  # with the address outside
    secure = page.locator('[id="e-shop/deployment/web--shop/deployment/cart"] .edge-line')
    plain = page.locator('[id="e-shop/deployment/payment--legacy/deployment/billing"] .edge-line')
    assert secure.evaluate("line => getComputedStyle(line).strokeDasharray") == "none"
    assert plain.evaluate("line => getComputedStyle(line).strokeDasharray") != "none"
    expect(page.locator(".edge-label.plaintext", has_text="not_meshed")).to_be_visible()
    expect(page.locator(".edge-label.tls").first).to_contain_text("TLS")


def test_a_box_of_the_picture_leads_to_its_workload_with_clients_and_servers(page: Page, shop: Live) -> None:
    page.goto(f"{shop.url}/topology")
    page.get_by_role("link", name=re.compile("^checkout, shop")).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("checkout")
    expect(page.get_by_role("region", name="Clients")).to_contain_text("shop/deployment/web")
    expect(page.get_by_role("region", name="Servers")).to_contain_text("unreachable")


def test_filters_act_while_they_are_typed_and_are_in_the_address(page: Page, shop: Live) -> None:
    page.goto(f"{shop.url}/workloads")
    page.locator("#q").press_sequentially("cart")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page).to_have_url(re.compile("q=cart"))
    expect(page.locator("#q")).to_be_focused()
    page.reload()
    expect(page.locator("tbody tr")).to_have_count(1)


def test_columns_sort(page: Page, shop: Live) -> None:
    page.goto(f"{shop.url}/workloads")
    page.locator("#sort-rps").click()
    expect(page.locator("tbody tr").first).to_contain_text("web")
    expect(page.locator("th[aria-sort=descending]")).to_contain_text("RPS")


def test_live_update_keeps_scroll_focus_and_selection(page: Page, shop: Live) -> None:
    page.goto(f"{shop.url}/workloads")
    page.set_viewport_size({"width": 900, "height": 320})
    link = page.locator('[id="w-shop/deployment/cart"] a')
    link.focus()
    page.evaluate("scrollTo(0, 120)")
    page.evaluate(
        """() => { window.kept = document.querySelector('[id="w-shop/deployment/web"] th');
                   getSelection().selectAllChildren(kept); }"""
    )
    selected = page.evaluate("getSelection().toString()")
    before = page.locator("#status").inner_text()
    expect(page.locator("#status")).not_to_have_text(before)
    expect(link).to_be_focused()
    assert page.evaluate("scrollY") == 120
    assert page.evaluate("getSelection().toString()") == selected != ""
    assert page.evaluate("""document.querySelector('[id="w-shop/deployment/web"] th') === kept""")


def test_pause_stops_the_updates_and_resume_starts_them(page: Page, shop: Live) -> None:
    page.clock.install()
    page.goto(shop.url)
    page.get_by_role("button", name="Pause").click()
    stopped = page.locator("#status").inner_text()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(60_000)
    assert asked == []
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#status")).not_to_have_text(stopped)


def test_tap_runs_from_start_to_stop_and_ends_with_the_page(page: Page, shop: Live) -> None:
    page.goto(f"{shop.url}/tap?namespace=shop&workload=deployment/web")
    expect(page.get_by_label("Workload")).to_have_value("deployment/web")
    page.get_by_label("Path").fill("/steady")
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#tap-rows tr").first).to_contain_text("GET cart/steady")
    expect(page.locator("#tap-status")).to_contain_text("Running")
    assert shop.query["workload"] == "deployment/web" and shop.query["path"] == "/steady"
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#tap-status")).to_contain_text("Stopped after")
    eventually_no_tap(page, shop)
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#tap-rows tr").first).to_be_visible()
    page.goto("about:blank")
    eventually_no_tap(page, shop)


def eventually_no_tap(page: Page, shop: Live) -> None:
    for _ in range(1200):
        if not shop.taps_open:
            return
        page.wait_for_timeout(100)
    raise AssertionError("the tap went on")


def test_what_comes_over_the_wire_is_shown_and_does_nothing(page: Page, shop: Live) -> None:
    hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>\\x1b[31m" + "A" * 8192
    shop.entries = [live.entry_of(path=hostile, peer="</td><b id=injected>")]
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    try:
        page.goto(f"{shop.url}/tap")
        page.get_by_role("button", name="Start").click()
        expect(page.locator("#tap-rows")).to_contain_text("<img src=x")
        expect(page.locator("#injected, #tap-rows img, #tap-rows script")).to_have_count(0)
    finally:
        shop.entries = []
    page.goto(f"{shop.url}/workloads?q=%3Cscript%3Ealert(3)%3C/script%3E&namespace=%22%3E%3Cb%20id=injected%3E")
    expect(page.locator("#injected, main script")).to_have_count(0)
    page.goto(f"{shop.url}/findings")
    expect(page.locator("#findings")).to_contain_text("<b>unreachable</b>")
    assert dialogs == []


def test_findings_are_listed_by_section_and_can_be_run_again(page: Page, shop: Live) -> None:
    page.goto(f"{shop.url}/findings")
    expect(page.locator("#check-ca-leader")).to_contain_text("no replica leads")
    expect(page.get_by_role("heading", name="Data plane")).to_be_visible()
    shop.checks = [live.CHECKS[0]]
    try:
        page.get_by_role("button", name="Check again").click()
        expect(page.locator("#check-ca-leader")).to_have_count(0)
        expect(page.locator("#check-webhook-ready")).to_be_visible()
    finally:
        shop.checks = live.CHECKS


def test_certificates_have_life_bars(page: Page, shop: Live) -> None:
    page.goto(f"{shop.url}/certificates")
    expect(page.get_by_role("rowheader", name="spiffe://cluster.local/ns/shop/sa/web")).to_be_visible()
    expect(page.locator("svg.life")).to_have_count(9 - 1)  # web's two pods have one identity


def test_dark_mode_follows_the_system_and_can_be_chosen(chromium: Browser, page: Page, shop: Live) -> None:
    def background() -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light = background()
    page.emulate_media(color_scheme="dark")
    dark = background()
    assert dark != light
    page.emulate_media(color_scheme="light")
    page.get_by_role("button", name="Theme: system").click()
    assert background() == dark
    page.goto(f"{shop.url}/topology")
    assert background() == dark
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()


def test_everything_can_be_reached_with_the_keyboard_and_focus_is_visible(page: Page, shop: Live) -> None:
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#content")).to_be_focused()
    page.goto(f"{shop.url}/workloads")
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    page.goto(f"{shop.url}/topology")
    box = page.locator("g.node a").first
    for _ in range(60):
        page.keyboard.press("Tab")
        if box.evaluate("node => node === document.activeElement"):
            break
    expect(box).to_be_focused()
    assert box.locator(".box").evaluate("rect => getComputedStyle(rect).strokeWidth") == "2px"
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/workloads/"))


def test_at_twice_the_size_nothing_is_cut_off(page: Page, shop: Live) -> None:
    page.set_viewport_size({"width": 640, "height": 400})  # 1280 by 800 at 200 %
    for path in ("/", "/topology", "/workloads", "/tap", "/certificates", "/findings"):
        page.goto(f"{shop.url}{path}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path


def test_an_unreachable_pod_shows_a_banner_and_its_return_takes_it_away(page: Page, shop: Live) -> None:
    banner = page.locator("#banner")
    expect(banner).to_be_hidden()
    shop.backend.gone = True
    try:
        expect(banner).to_contain_text("no pod of the dashboard is ready")
        expect(page.locator("#mesh-tls")).to_be_visible()  # the last numbers stay
        page.goto(f"{shop.url}/workloads")
        expect(page.get_by_role("heading", level=1)).to_contain_text("cannot be reached")
    finally:
        shop.backend.gone = False
    expect(page.get_by_role("heading", level=1)).to_contain_text("Workloads")
    expect(banner).to_be_hidden()


def test_five_hundred_workloads_are_listed_and_drawn_by_namespace(chromium: Browser) -> None:
    with live.started(fleet.large(500), interval_s=2) as running:
        opened = chromium.new_page()
        opened.set_default_timeout(TIMEOUT_MS)
        opened.goto(f"{running.url}/?key={KEY}")
        opened.goto(f"{running.url}/workloads")
        expect(opened.locator("tbody tr")).to_have_count(500)
        opened.locator("#q").fill("service-123")
        expect(opened.locator("tbody tr")).to_have_count(1)
        opened.goto(f"{running.url}/topology")
        expect(opened.locator("h1")).to_contain_text("by namespace")
        expect(opened.locator("g.node")).to_have_count(10)
        opened.close()
