"""A real Chromium (Debian's, by Playwright) and the real demo, whose rollout is held at its first step."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page, async_playwright

from tests.support.demo import demo
from tests.support.require import require, require_library

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
USERS = 60


@dataclass(frozen=True)
class Running:
    """The demo: the page's address and the shop's."""

    page: str
    shop: str

    def state(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.page}state") as response:
            return dict(json.load(response))

    def hold(self) -> None:
        """Pause the rollout as soon as it has begun: it stays at its first step."""
        headers = {"Content-Type": "application/json", "Origin": self.shop.rstrip("/")}
        request = urllib.request.Request(f"{self.page}action", b'{"verb": "Pause"}', headers)
        deadline = time.monotonic() + 15
        while self.state()["rollout"]["status"]["phase"] != "Paused":
            assert time.monotonic() < deadline
            with suppress(urllib.error.HTTPError):  # refused: it has not begun yet
                urllib.request.urlopen(request).close()
            time.sleep(0.2)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    require("chromium")
    require_library("libatomic.so.1", "libatomic1")  # of the node that Playwright's driver brings along
    with demo(tmp_path_factory.mktemp("demo"), "--users", str(USERS)) as process:
        process.until(f"{USERS} users are there")
        running = Running(process.addresses["page"], process.addresses["shop"])
        running.hold()
        yield running


@pytest.fixture
async def browser(tmp_path: Path, running: Running) -> AsyncIterator[BrowserContext]:
    """A browser that has never been anywhere."""
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=require("chromium"), args=FLAGS
        )
        try:
            yield context
        finally:
            await context.close()


@pytest.fixture
async def page(browser: BrowserContext, running: Running) -> AsyncIterator[Page]:
    """The demo's page as a visitor of the stable version sees it, which most visitors are."""
    page = browser.pages[0]
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    for _ in range(20):
        await page.goto(running.page)
        version = page.locator("#my-version[data-version]")
        if await version.get_attribute("data-version") == "v1":
            break
        await browser.clear_cookies()
    yield page
    assert not faults
