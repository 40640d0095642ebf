"""Debian's Chromium, headless, for the tests of the pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """`make test-host` installs it. As root it has no sandbox of its own."""
    path = shutil.which("chromium")
    assert path, "no chromium: run `make test-host`"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
