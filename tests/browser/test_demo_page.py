"""The demo's page in a real browser: a visitor who switches versions and lets go again, and an abort by one click."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.browser.conftest import USERS, Running

pytestmark = [pytest.mark.browser, pytest.mark.integration]

SOON_MS = 15_000


async def sees(page: Page, version: str, reason: str) -> None:
    """The visitor's own version and why, as the page shows them."""
    await expect(page.locator("#my-version")).to_have_text(re.compile(f"^{version} "), timeout=SOON_MS)
    await expect(page.locator("#me")).to_have_attribute("data-reason", reason, timeout=SOON_MS)


async def switch(page: Page, name: str) -> None:
    await page.locator(f"label:has(#{name})").click()


async def test_one_square_is_one_user(page: Page) -> None:
    """The issue, "The demo": a grid in which one square is one simulated user; none of them is red."""
    squares = page.locator("#grid i")
    await expect(squares).to_have_count(USERS, timeout=SOON_MS)
    await expect(page.locator("#grid i[data-revision='v1']").first).to_be_visible(timeout=SOON_MS)
    await expect(page.locator("#grid i.flipped")).to_have_count(0)
    await expect(page.locator("#flip-details li")).to_have_text([])
    await expect(page.locator("#flips")).to_have_text("no flip")
    await expect(page.locator("#lost")).to_have_text("no request lost")
    await expect(page.locator("#legend li").first).to_contain_text("users")


async def test_the_page_shows_the_rollout(page: Page) -> None:
    """Beside it the rollout's state, its steps, programmed and measured share."""
    await expect(page.locator("#phase")).to_have_text("Paused", timeout=SOON_MS)
    await expect(page.locator("#revisions")).to_have_text("v1 → v2")
    await expect(page.locator("#steps li")).to_have_text(["5 %", "25 %", "50 %", "100 %"])
    await expect(page.locator("#programmed")).to_have_text("5.00 %")
    await expect(page.locator("#measured")).to_have_text(re.compile(r"\d+\.\d\d %"), timeout=SOON_MS)


async def test_a_visitor_keeps_its_version(page: Page, browser: BrowserContext) -> None:
    """One user, one version: over reloads, in a second tab, and on the shop's own pages."""
    await sees(page, "v1", "split")
    for _ in range(3):
        await page.reload()
        await sees(page, "v1", "split")
    second = await browser.new_page()
    await second.goto(page.url)
    await sees(second, "v1", "split")


async def test_the_header_toggle(page: Page, running: Running) -> None:
    """`X-Canary: yes` with the page's own requests: the canary, over reloads too, until it is let go."""
    await sees(page, "v1", "split")
    await switch(page, "header-toggle")
    await sees(page, "v2", "route/page-toggle")
    await page.reload()
    await sees(page, "v2", "route/page-toggle")
    await switch(page, "header-toggle")
    await sees(page, "v1", "split")
    await page.reload()
    await sees(page, "v1", "split")


async def test_the_preview_toggle(page: Page, browser: BrowserContext, running: Running) -> None:
    """A pin by cookie: the canary for the page and for every page of the shop, over reloads, until it is let go."""
    await switch(page, "preview-toggle")
    await sees(page, "v2", "preview")
    await page.reload()
    await sees(page, "v2", "preview")
    await expect(page.locator("#preview-toggle")).to_be_checked()
    shop = await browser.new_page()
    await shop.goto(running.shop)
    await expect(shop.locator("header")).to_have_text("Shop v2")
    await switch(page, "preview-toggle")
    await sees(page, "v1", "split")
    await shop.reload()
    await expect(shop.locator("header")).to_have_text("Shop v1")


async def test_static_urls(page: Page, running: Running) -> None:
    """/canary and /stable without their prefixes, and payments on stable whatever the browser is pinned to."""
    for path, version in (("canary/", "v2"), ("canary/product", "v2"), ("stable/", "v1"), ("payments", "v1")):
        await page.goto(running.shop + path)
        await expect(page.locator("header")).to_have_text(f"Shop {version}")


async def test_the_canary_is_made_bad_and_good_again(page: Page, running: Running) -> None:
    """Buttons and knobs that turn what the version on trial is like."""
    await page.locator("#make-bad").click()
    await expect(page.locator("#notice")).to_contain_text("v2 answers 3 % with an error")
    await expect(page.locator("#make-bad")).to_be_disabled(timeout=SOON_MS)
    assert [app["errorPercent"] for app in running.state()["apps"]] == [0.1, 3]
    await page.locator("#latencyMs").fill("50")
    await expect(page.locator("#notice")).to_contain_text("after 50 ms", timeout=SOON_MS)
    await page.locator("#make-good").click()
    await expect(page.locator("#make-good")).to_be_disabled(timeout=SOON_MS)
    assert [app["errorPercent"] for app in running.state()["apps"]] == [0.1, 0.1]


async def test_abort_by_one_click(page: Page) -> None:
    """Nobody is on the canary after an abort, whatever is toggled; then the next version can be shipped."""
    await switch(page, "preview-toggle")
    await sees(page, "v2", "preview")
    await page.locator("#abort").click()
    await expect(page.locator("#phase")).to_have_text("Aborted", timeout=SOON_MS)
    await sees(page, "v1", "abort")
    await switch(page, "header-toggle")
    await sees(page, "v1", "abort")
    await expect(page.locator("#grid i[data-revision='v2']")).to_have_count(0, timeout=SOON_MS)
    await expect(page.locator("#grid i.flipped")).to_have_count(0)
    await switch(page, "header-toggle")
    await switch(page, "preview-toggle")
    await page.locator("#next").click()
    await expect(page.locator("#revisions")).to_have_text("v1 → v3", timeout=SOON_MS)
    await switch(page, "header-toggle")
    await sees(page, "v3", "route/page-toggle")
    await expect(page.locator("#flip-details li")).to_have_text([])
    await expect(page.locator("#flips")).to_have_text("no flip")
