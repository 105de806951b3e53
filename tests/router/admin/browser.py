"""A browser that looks at the status page, and hands that use it as an operator would.

The page shows nothing before its first answer, and its buttons cannot be used while it has no recent one. So a key is
pressed only where the page is seen to be ready for it; a click waits for that by itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Route,
    async_playwright,
    expect,
)

from tests.router.admin.live import Stage

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_S: Final = 60.0
"""Against hanging only: a busy machine takes ten times as long as an idle one."""
expect.set_options(timeout=PATIENCE_S * 1000)


def browser_path() -> str:
    """Where a Chromium is; without one the test is skipped, and says so (in CI it fails)."""
    for name in BROWSERS:
        found = shutil.which(name)
        if found is not None:
            return found
    words = "no Chromium on this machine: apt-get install chromium"
    if os.environ.get("CI"):
        pytest.fail(words)
    pytest.skip(words)


@dataclass
class Eyes:
    """One tab, and all that went wrong in it. `expected`: words of console errors that belong to the test."""

    page: Page
    own: str
    expected: tuple[str, ...] = ()
    complaints: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("console", self.hear)
        self.page.on("pageerror", lambda error: self.complain(str(error)))
        self.page.on("request", lambda request: self.note(request.url))

    def hear(self, said: ConsoleMessage) -> None:
        if said.type in ("error", "warning"):
            self.complain(said.text)

    def complain(self, text: str) -> None:
        if not any(word in text for word in self.expected):
            self.complaints.append(text)

    def note(self, url: str) -> None:
        if not url.startswith((f"{self.own}/", "data:")):
            self.foreign.append(url)


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    path = browser_path()
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        try:
            yield chromium
        finally:
            await chromium.close()


@asynccontextmanager
async def looking(
    stage: Stage, *, expected: tuple[str, ...] = (), context: Mapping[str, Any] | None = None
) -> AsyncIterator[Eyes]:
    """A tab with the page. At the end: no complaint in the console, and nobody else was asked."""
    async with browser() as chromium:
        tab: BrowserContext = await chromium.new_context(**(context or {}))
        page = await tab.new_page()
        page.set_default_timeout(PATIENCE_S * 1000)
        eyes = Eyes(page, stage.url, expected)
        eyes.watch()
        await page.goto(stage.url)
        yield eyes
        assert eyes.complaints == []
        assert eyes.foreign == []


# Hands.


async def press(page: Page, key: str, on: Locator) -> None:
    """Press a key on the element that has the focus, which must be this one, once it can be used."""
    await expect(on).to_be_visible()
    await expect(on).to_be_enabled()
    await expect(on).to_be_focused()
    await page.keyboard.press(key)


async def order(page: Page, verb: str, why: str = "") -> None:
    """Press a button and confirm."""
    await page.click(f"[data-verb={verb}]")
    if why:
        await page.fill("#confirm-why", why)
    await page.click("#confirm-yes")
    await expect(page.locator("#confirm")).to_be_hidden()


async def becomes(look: Callable[[], Any], wanted: object) -> None:
    """Look, by an async function, until it sees what is wanted."""
    seen: object = None
    for _ in range(int(PATIENCE_S / 0.05)):
        seen = await look()
        if seen == wanted:
            return
        await asyncio.sleep(0.05)
    assert seen == wanted


async def bar(page: Page) -> dict[str, float]:
    """Each set's part of the bar in percent, as drawn."""
    shares: dict[str, float] = await page.evaluate(
        """() => {
            const whole = document.querySelector(".bar")?.getBoundingClientRect().width;
            return Object.fromEntries([...document.querySelectorAll(".bar .part")].map(
                (part) => [part.dataset.set, 100 * part.getBoundingClientRect().width / whole]));
        }"""
    )
    return shares


async def bar_becomes(page: Page, shares: dict[str, float]) -> None:
    """The bar moves to its new widths; it must come to these."""
    await becomes(lambda: bar(page), pytest.approx(shares, abs=0.2))


async def alter(route: Route, change: Callable[[dict[str, Any]], None]) -> None:
    """Let the page have an answer of the router with a change."""
    answer = await route.fetch()
    document = await answer.json()
    change(document)
    await route.fulfill(status=200, content_type="application/json", body=json.dumps(document))
