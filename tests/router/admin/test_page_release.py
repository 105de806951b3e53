"""A release on the status page: what a start would do, and how a canary is judged."""

from __future__ import annotations

import os
import re
from pathlib import Path

from playwright.async_api import expect

from tests.router.admin.browser import bar_becomes, looking, order, press
from tests.router.admin.live import LONG, rollout, staged


async def test_what_a_start_would_do_is_told_before_it(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": 100, "b": 0}, more=LONG) as stage, stage.traffic(2):
        await stage.until("/curves", serial=1)
        async with looking(stage) as eyes:
            page, plan = eyes.page, eyes.page.locator("#plan")
            await expect(plan).to_contain_text("Releases b, compared with a. About 2 h, and 1 pause")
            await expect(plan).to_contain_text("a 90 %, b 10 %")
            await expect(plan).to_contain_text("requests a side")
            await expect(plan).to_contain_text("If every request fails: back after")
            await expect(plan).to_contain_text("within its margins: up to 2 points more errors than control")
            if folder := os.environ.get("GC_SHOTS"):
                await page.screenshot(path=f"{folder}/plan.png", full_page=True)
                await page.set_viewport_size({"width": 390, "height": 844})
                await page.locator("#plan").screenshot(path=f"{folder}/plan-narrow.png")
                await page.set_viewport_size({"width": 1280, "height": 720})
            await page.click("[data-verb=start]")
            await expect(page.locator("#confirm-text")).to_contain_text(
                "b gets 10 % for 1 h, then a pause, then 50 % for 1 h."
            )
            # Another plan than the one in the dialog is not started.
            stage.write({"a": 100, "b": 0}, version=2, more=rollout("{weight: 90, hold: 1m}"))
            await expect(page.locator("#confirm-yes")).to_be_disabled()
            await page.keyboard.press("Escape")
            await expect(plan).to_contain_text("90 %")
            await order(page, "start")
            await expect(plan).to_be_hidden()
            assert (await stage.ask("/rollout"))["weight"] == 90.0


async def test_a_canary_that_fails_is_shown_to_fail(tmp_path: Path) -> None:
    plan = rollout(
        "{weight: 50, hold: 1h}", abort_when="{min_requests: 40, task_failures_over_baseline: off}"
    )
    async with staged(tmp_path, {"a": 100, "b": 0}, more=plan) as stage, stage.traffic():
        await stage.ask("/rollout/start", {"by": "jo"})
        # Who comes late sees what was before.
        await stage.until("/curves", serial=3)
        await stage.until(verdict="pass", within_s=60.0)
        async with looking(stage) as eyes:
            page = eyes.page
            await expect(page.locator("[data-check=errors]")).to_contain_text("pass")
            await expect(page.locator("[data-check=errors]")).to_contain_text("+2.00 points")
            # A check that is off has no verdict.
            await expect(page.locator("[data-check=tasks] .badge")).to_have_text("○ off")
            await expect(page.locator("[data-check=latency] .interval")).to_be_visible()
            await expect(page.locator("#show-cohorts")).to_have_attribute("aria-pressed", "true")
            for kind in ("errors", "latency", "requests"):
                for cohort in ("canary", "control"):
                    drawn = page.locator(f"[data-chart={kind}] path.curve.{cohort}:not(.thin)")
                    await expect(drawn).to_have_count(1)
            await expect(page.locator("#waits")).to_contain_text("Waits for the hold of step 1")
            await expect(page.locator("#sight")).to_contain_text("Without an answer yet at the canary")
            stage.sets["b"].error_rate = 0.7
            await expect(page.locator("#phase")).to_contain_text("aborted")
            await expect(page.locator("#sight tbody tr")).to_have_count(3)
            await expect(page.locator("#sight tbody tr").first).to_contain_text("GET /x")
            await expect(page.locator("#sight tbody tr").first).to_contain_text("500")
            if folder := os.environ.get("GC_SHOTS"):
                await page.screenshot(path=f"{folder}/aborted.png", full_page=True)
                await page.set_viewport_size({"width": 390, "height": 844})
                await page.screenshot(path=f"{folder}/aborted-narrow.png", full_page=True)
                await page.set_viewport_size({"width": 1280, "height": 720})
            await expect(page.locator("#checks")).to_contain_text("surely more than allowed")
            await expect(page.locator("#announcer")).to_contain_text("aborted")
            await bar_becomes(page, {"a": 100})
            barred = 'barred: its rollout was aborted; another build, another weight in the file, a start, or "End"'
            await expect(page.locator("#sets tr", has_text="(canary)")).to_contain_text(barred)
            await expect(page.locator("#legend")).to_contain_text("barred")
            await expect(page.locator("#sets")).not_to_contain_text("drain")
            chart = page.locator("[data-chart=errors] svg")
            await chart.focus()
            await press(page, "ArrowLeft", chart)
            await expect(chart.locator(".cursor")).to_have_count(1)
            await expect(chart).to_have_attribute("aria-label", re.compile("canary"))
            await page.click("#show-sets")
            await expect(page.locator("[data-chart=requests] path.curve.set-0")).to_have_count(1)
