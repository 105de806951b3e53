"""Orders given on the status page: what is asked before, by mouse and keyboard, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

from playwright.async_api import Route, expect

from tests.router.admin.browser import bar_becomes, looking, order, press
from tests.router.admin.live import LONG, staged


async def test_nothing_is_ordered_without_confirmation(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": 100, "b": 0}, more=LONG) as stage, looking(stage) as eyes:
        page = eyes.page
        start, dialog = page.locator("[data-verb=start]"), page.locator("#confirm")
        no, yes = page.locator("#confirm-no"), page.locator("#confirm-yes")
        posted: list[str] = []
        page.on("request", lambda request: posted.append(request.url) if request.method == "POST" else None)
        # With the keyboard alone. A second Enter, as of a key held too long, cancels.
        await expect(start).to_be_enabled()
        await start.focus()
        await press(page, "Enter", start)
        await expect(dialog).to_be_visible()
        await press(page, "Enter", no)
        await expect(dialog).to_be_hidden()
        await press(page, "Enter", start)
        await expect(dialog).to_be_visible()
        await press(page, "Escape", no)
        await expect(dialog).to_be_hidden()
        assert posted == []
        assert (await stage.ask("/rollout"))["phase"] == "idle"

        by, why = page.locator("#confirm-by"), page.locator("#confirm-why")
        await press(page, "Enter", start)
        await expect(dialog).to_be_visible()
        await by.focus()
        await expect(by).to_be_focused()
        await page.keyboard.type("jo")
        await press(page, "Tab", by)
        await expect(why).to_be_focused()
        await page.keyboard.type("release 42")
        await press(page, "Tab", why)
        await press(page, "Tab", no)
        await press(page, "Space", yes)
        await expect(page.locator("#phase")).to_contain_text("holding")
        status = await stage.ask("/rollout")
        assert (status["phase"], status["weight"]) == ("holding", 10.0)
        assert status["events"][0]["by"] == "jo"
        assert "release 42" in status["events"][0]["text"]
        assert posted == [f"{stage.url}/rollout/start"]


async def test_each_button_does_what_it_says(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": 100, "b": 0}, more=LONG) as stage, looking(stage) as eyes:
        page, phase = eyes.page, eyes.page.locator("#phase")
        await order(page, "start")
        await bar_becomes(page, {"a": 90, "b": 10})
        await expect(page.locator("#steps [aria-current=step]")).to_contain_text("10 %")
        await order(page, "pause", "lunch")
        await expect(phase).to_contain_text("paused by hand: lunch")
        await expect(page.locator("[data-verb=pause]")).to_be_disabled()
        await order(page, "resume")
        await expect(phase).to_contain_text("holding")
        await page.click("[data-verb=skip]")
        await expect(page.locator("#confirm-text")).to_contain_text("step 2: a pause")
        await page.click("#confirm-yes")
        await expect(phase).to_contain_text("step 2 is a pause")
        assert (await stage.ask("/rollout"))["step"] == 2
        await page.click("[data-verb=promote]")
        await expect(page.locator("#confirm-text")).to_contain_text("from 10 % to 50 %")
        await page.click("#confirm-yes")
        await expect(phase).to_contain_text("done")
        await bar_becomes(page, {"a": 50, "b": 50})
        await expect(page.locator("[data-verb=skip]")).to_be_disabled()
        await page.click("[data-verb=abort]")
        await page.check("#confirm-at-once")
        await page.click("#confirm-yes")
        await expect(phase).to_contain_text("aborted")
        await bar_becomes(page, {"a": 100})
        assert (await stage.ask("/rollout"))["effective"]["b"] == 0


async def test_an_order_for_a_step_that_is_over_cannot_be_confirmed(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": 100, "b": 0}, more=LONG) as stage, looking(stage) as eyes:
        page = eyes.page
        await order(page, "start")
        await page.click("[data-verb=skip]")
        await stage.ask("/rollout/skip", {"by": "another"})
        await expect(page.locator("#confirm-error")).to_contain_text("went on meanwhile")
        await expect(page.locator("#confirm-yes")).to_be_disabled()
        await page.locator("#confirm-why").press("Enter")
        assert (await stage.ask("/rollout"))["step"] == 2
        await page.keyboard.press("Escape")
        # The dialog shows the router's refusal.
        await page.route("**/rollout/abort", lambda route: refuse(route))
        await page.click("[data-verb=abort]")
        eyes.expected = ("409",)
        await page.click("#confirm-yes")
        await expect(page.locator("#confirm-error")).to_contain_text("Not done: somebody was quicker")


async def refuse(route: Route) -> None:
    problem = {"title": "Not possible now", "detail": "somebody was quicker", "status": 409}
    await route.fulfill(status=409, content_type="application/problem+json", body=json.dumps(problem))


async def test_a_page_that_is_behind_orders_nothing(tmp_path: Path) -> None:
    """Its news are held back, as by a slow line; the router knows better."""
    async with staged(tmp_path, {"a": 100, "b": 0}, more=LONG) as stage, looking(stage) as eyes:
        page = eyes.page
        await order(page, "start")
        await expect(page.locator("[data-verb=skip]")).to_be_enabled()
        old = await stage.ask("/rollout")
        await page.route("**/rollout", lambda route: route.fulfill(json=old))
        await stage.ask("/rollout/skip", {"by": "another"})
        eyes.expected = ("409",)
        for verb in ("skip", "promote"):
            await page.click(f"[data-verb={verb}]")
            await page.click("#confirm-yes")
            await expect(page.locator("#confirm-error")).to_contain_text("b is paused, at step 2 of 3")
            await page.click("#confirm-no")
        now = await stage.ask("/rollout")
        assert (now["step"], now["weight"]) == (2, 10.0)
        # An abort holds wherever this rollout is.
        await order(page, "abort")
        assert (await stage.ask("/rollout"))["phase"] in ("aborting", "aborted")


async def test_an_order_onto_a_set_that_is_down_says_why_and_offers_force(tmp_path: Path) -> None:
    async with (
        staged(tmp_path, {"a": 100, "b": 0}, more=LONG) as stage,
        looking(stage, expected=("409",)) as eyes,
    ):
        page, force = eyes.page, eyes.page.locator("#confirm-force-row")
        stage.sets["b"].ready = False
        await expect(page.locator("#sets")).to_contain_text("down: fails its health check")
        await page.click("[data-verb=start]")
        await expect(force).to_be_hidden()
        await page.click("#confirm-yes")
        await expect(page.locator("#confirm-error")).to_contain_text(
            "set 'b' takes no new requests: it is down"
        )
        await expect(force).to_be_visible()
        assert (await stage.ask("/rollout"))["phase"] == "idle"
        await force.click()
        if folder := os.environ.get("GC_SHOTS"):
            await page.screenshot(path=f"{folder}/force.png")
        await page.click("#confirm-yes")
        await expect(page.locator("#confirm")).to_be_hidden()
        await expect(page.locator("#phase")).to_contain_text("holding")
