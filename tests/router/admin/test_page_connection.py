"""The status page without the router, with a slow one, and with one that asks for a token."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

from playwright.async_api import Error, Route, expect

from tests.router.admin.browser import alter, bar_becomes, looking, order, press
from tests.router.admin.live import LONG, staged

AWAY = ("ERR_CONNECTION_REFUSED", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET", "ERR_INCOMPLETE_CHUNKED")
TOKEN = "0123456789abcdef0123"


async def test_without_the_router_nothing_old_looks_new_and_its_return_is_seen(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": 100, "b": 0}, more=LONG) as stage, stage.traffic(2):
        await stage.until("/curves", serial=2)
        async with looking(stage, expected=AWAY) as eyes:
            page = eyes.page
            await order(page, "start")
            await expect(page.locator("[data-chart=requests] path.curve").first).to_be_attached()
            await page.click("[data-verb=abort]")
            await stage.stop()
            await expect(page.locator("#link")).to_contain_text("no connection since")
            await expect(page.locator("body.stale")).to_be_attached()
            await expect(page.locator("#confirm-yes")).to_be_disabled()
            await page.keyboard.press("Escape")
            for verb in ("pause", "skip", "promote", "abort"):
                await expect(page.locator(f"[data-verb={verb}]")).to_be_disabled()
            assert (await page.title()).startswith("✗ no connection")
            await stage.start()
            await expect(page.locator("#link-word")).to_have_text("● live")
            await expect(page.locator("body.stale")).to_have_count(0)
            await expect(page.locator("[data-verb=abort]")).to_be_enabled()
            await bar_becomes(page, {"a": 90, "b": 10})
            # The past before the restart is still there, and the time between is a gap.
            await page.click("#show-sets")
            await expect(page.locator("[data-chart=requests] .set-0:not(.key):not(.thin)")).to_have_count(2)


async def test_a_button_keeps_the_focus_while_the_router_says_nothing(tmp_path: Path) -> None:
    """A late answer must not move the operator who has a finger on Enter."""
    async with staged(tmp_path, {"a": 100, "b": 0}, more=LONG) as stage, looking(stage) as eyes:
        page = eyes.page
        start, dialog = page.locator("[data-verb=start]"), page.locator("#confirm")
        await expect(start).to_be_enabled()
        await start.focus()
        news_again = asyncio.Event()
        await page.route("**/status", lambda route: later(route, news_again))
        await expect(start).to_be_disabled()
        await expect(page.locator("#orders-note")).to_contain_text("without a connection")
        await page.keyboard.press("Enter")
        await expect(start).to_be_focused()
        await expect(dialog).to_be_hidden()
        news_again.set()
        await press(page, "Enter", start)
        await expect(dialog).to_be_visible()
        # A button that goes away hands the focus to its rollout, not to nobody.
        await page.click("#confirm-yes")
        await expect(start).to_be_hidden()
        await expect(page.locator("#rollout")).to_be_focused()


async def later(route: Route, moment: asyncio.Event) -> None:
    """Hold an answer back; one that the page gave up meanwhile reaches nobody."""
    await moment.wait()
    with contextlib.suppress(Error):
        await route.continue_()


async def test_a_router_that_hangs_is_a_router_away(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, looking(stage) as eyes:
        page = eyes.page
        await expect(page.locator("#link-word")).to_have_text("● live")
        assert stage.process is not None
        arbiter = stage.process.pid
        worker = int(Path(f"/proc/{arbiter}/task/{arbiter}/children").read_text().split()[0])
        os.kill(worker, signal.SIGSTOP)
        try:
            await expect(page.locator("#link")).to_contain_text("no answer")
            await expect(page.locator("body.stale")).to_be_attached()
        finally:
            os.kill(worker, signal.SIGCONT)
        await expect(page.locator("#link-word")).to_have_text("● live")


async def test_a_clock_that_was_set_back_hides_nothing(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, stage.traffic(1):
        await stage.until("/curves", serial=2)
        async with looking(stage) as eyes:
            page = eyes.page
            curve = page.locator("[data-chart=requests] path.curve.set-0")
            await expect(curve).to_have_count(1)
            await page.route("**/curves?*", lambda route: alter(route, an_hour_back))
            now = time.time() - 3600
            hours = "|".join({time.strftime("%H", time.localtime(now + off_s)) for off_s in (-60, 60)})
            await expect(page.locator("[data-chart=requests] .readout")).to_have_text(
                re.compile(rf"^({hours}):\d\d:\d\d")
            )
            await expect(curve).to_have_count(1)


def an_hour_back(curves: dict[str, Any]) -> None:
    curves["now"] -= 3600


async def test_the_token_is_asked_for_once_and_kept_in_this_tab(tmp_path: Path) -> None:
    async with staged(tmp_path, token=TOKEN) as stage, looking(stage, expected=("401",)) as eyes:
        page = eyes.page
        token = page.locator("#login-token")
        await token.fill("not the right one")
        await press(page, "Enter", token)
        await expect(page.locator("#login-error")).to_contain_text("not right")
        await expect(page.locator("#content")).to_be_hidden()
        await token.fill(TOKEN)
        await press(page, "Enter", token)
        await expect(page.locator("#content")).to_be_visible()
        await expect(page.locator("#login")).to_be_hidden()
        await page.reload()
        await expect(page.locator("#content")).to_be_visible()
        await expect(page.locator("#login")).to_be_hidden()
        assert TOKEN not in page.url
        assert await page.evaluate("JSON.stringify({...localStorage}) + document.cookie") == "{}"
        other = await page.context.new_page()
        await other.goto(stage.url)
        await expect(other.locator("#login")).to_be_visible()
