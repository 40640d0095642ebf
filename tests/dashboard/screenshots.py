"""`make screenshots`: the pictures in docs/screenshots, of the pages over a mesh that is the same every time."""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime

from playwright.sync_api import Page, sync_playwright

from cluster.layout import REPOSITORY
from tests.dashboard import live, meshes
from tests.dashboard.live import KEY, Live

FOLDER = REPOSITORY / "docs" / "screenshots"
PATHS = {
    "overview": "/",
    "topology": "/topology",
    "workloads": "/workloads",
    "workload": "/workloads/shop/deployment/checkout",
    "tap": "/tap?namespace=shop&workload=deployment/web",
    "certificates": "/certificates",
    "findings": "/findings",
}
DARK = ("overview", "topology")


def main() -> int:
    """The exit code."""
    FOLDER.mkdir(exist_ok=True)
    chromium = shutil.which("chromium")
    # The numbers are those of meshes.shop, not of proxies that count as they are asked.
    now = datetime.now(UTC)
    with live.started([], snapshot=meshes.shop(now)) as running, sync_playwright() as playwright:
        running.entries = _entries()
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for scheme, wanted in (("light", tuple(PATHS)), ("dark", DARK)):
            page = browser.new_page(viewport={"width": 1400, "height": 780}, color_scheme=scheme)
            page.goto(f"{running.url}/?key={KEY}")
            for name in wanted:
                _take(page, running, name, f"{name}-dark" if scheme == "dark" else name)
        browser.close()
    return 0


def _take(page: Page, running: Live, name: str, picture: str) -> None:
    page.goto(running.url + PATHS[name])
    if name == "tap":
        page.get_by_role("button", name="Start").click()
        page.locator("#tap-rows tr").nth(len(_entries())).wait_for()
        page.get_by_role("button", name="Stop").click()
    if name == "findings":
        page.locator("#findings section").first.wait_for()
    page.screenshot(path=FOLDER / f"{picture}.png")
    print(f"docs/screenshots/{picture}.png {(FOLDER / f'{picture}.png').stat().st_size // 1024} kB")


def _entries() -> list[dict[str, object]]:
    plain = {"tls": "unreachable", "secure": False, "peer": "-", "destination": "data/statefulset/postgres"}
    return [
        live.entry_of(path="/items/17"),
        live.entry_of(path="/items", request="POST cart/items", status="201", latency="4.2ms"),
        live.entry_of(
            source="shop/deployment/checkout", request="TCP", status="-", latency="12s", bytes="41kB", **plain
        ),
        live.entry_of(destination="shop/deployment/catalog", request="GET catalog/search?q=%3Cscript%3E", status="404"),
        live.entry_of(path="/items/17", status="503", latency="1.2s"),
    ]


if __name__ == "__main__":
    sys.exit(main())
