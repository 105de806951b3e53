"""The status page in a real browser, before a real router: weights, sets, mistakes, on a screen and on a phone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from tests.router.admin.browser import Eyes, bar_becomes, looking
from tests.router.admin.live import LONG, staged


async def test_the_bar_shows_the_weights_in_force(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": 92.5, "b": 7.5}) as stage, looking(stage) as eyes:
        page = eyes.page
        await expect(page.locator("#link-word")).to_have_text("● live")
        await bar_becomes(page, {"a": 92.5, "b": 7.5})
        await expect(page.locator("#legend")).to_contain_text("7.5 %")
        stage.write({"a": 0.01, "b": 99.99}, version=2)
        await expect(page.locator("#version")).to_contain_text("version 2")
        await bar_becomes(page, {"a": 0.01, "b": 99.99})
        await expect(page.locator("#legend")).to_contain_text("99.99 %")
        # A set that is down bears nothing, and is said to be down in words.
        stage.sets["b"].ready = False
        await bar_becomes(page, {"a": 100.0})
        await expect(page.locator("#legend")).to_contain_text("down")
        await expect(page.locator("#legend")).to_contain_text("file says 99.99 %")
        stage.sets["a"].ready = False
        await expect(page.locator("#alerts")).to_contain_text(
            "No set that takes new work is alive. As a last resort"
        )


async def test_a_broken_file_is_told_with_its_line(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, looking(stage) as eyes:
        page, alerts = eyes.page, eyes.page.locator("#alerts")
        await expect(page.locator("#version")).to_contain_text("version 1")
        stage.write({"a": 90, "b": 11}, version=2)
        await expect(alerts).to_contain_text("line 8")
        await expect(alerts).to_contain_text("exactly 100")
        await expect(alerts).to_contain_text("version 1 stays")
        await bar_becomes(page, {"a": 90, "b": 10})
        stage.write({"a": 89, "b": 11}, version=3)
        await expect(alerts).to_be_empty()
        await bar_becomes(page, {"a": 89, "b": 11})


async def test_empty_states_have_words(tmp_path: Path) -> None:
    states = {"b": "drain"}
    async with staged(tmp_path, {"a": 100, "b": 0}, states=states) as stage, looking(stage) as eyes:
        page = eyes.page
        await expect(page.locator("#phase")).to_contain_text("no `rollout` section")
        await expect(page.locator("#orders button:visible")).to_have_count(0)
        await expect(page.locator("#sets")).to_contain_text("no traffic")
        await expect(page.locator("#sets")).to_contain_text("drain: no new work")
        await expect(page.locator("#events")).to_contain_text("none yet")
        await expect(page.locator("[data-chart=requests]")).to_contain_text("no traffic")
        stage.write({"a": 100, "b": 0}, version=2, more=LONG, states={"b": "maint"})
        await expect(page.locator("#sets")).to_contain_text("maint: not asked at all")
        await expect(page.locator("#phase")).to_contain_text("The file has a plan")
        await expect(page.locator("#orders button:visible")).to_have_count(1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_can_be_read_on_a_phone_by_day_and_night(tmp_path: Path, scheme: str) -> None:
    context = {"viewport": {"width": 390, "height": 800}, "color_scheme": scheme}
    async with staged(tmp_path, {"a": 100, "b": 0}, more=LONG) as stage, stage.traffic(2):
        await stage.ask("/rollout/start", {"by": "jo", "why": "a reason " * 30})
        await stage.until("/curves", serial=1)
        async with looking(stage, context=context) as eyes:
            page = eyes.page
            await expect(page.locator("[data-check=errors]")).to_be_visible()
            for width in (390, 820, 1280):
                await page.set_viewport_size({"width": width, "height": 800})
                # The curves are drawn again for the new width.
                await page.wait_for_function(
                    "width => document.documentElement.scrollWidth <= width", arg=width
                )
            assert await faint(eyes) == []


async def faint(eyes: Eyes) -> list[Any]:
    """Texts whose contrast with what lies behind them is below 4.5 (WCAG AA)."""
    found: list[Any] = await eyes.page.evaluate(
        """() => {
            const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
            const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
                .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
                .reduce((sum, v, index) => sum + v * [0.2126, 0.7152, 0.0722][index], 0);
            const behind = (node) => {
                for (; node; node = node.parentElement) {
                    const back = parts(getComputedStyle(node).backgroundColor);
                    if (back.length < 4 || back[3] > 0) return back;
                }
                return [255, 255, 255];
            };
            const poor = [];
            const texts = "h1, h2, p, th, td, li, span, b, button:not([aria-disabled=true]), time";
            for (const node of document.querySelectorAll(texts)) {
                if (!node.checkVisibility() || !node.textContent.trim()) continue;
                const [a, b] = [light(parts(getComputedStyle(node).color)), light(behind(node))];
                const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
                if (ratio < 4.5) poor.push([node.tagName, node.className, node.textContent.slice(0, 30), ratio]);
            }
            return poor;
        }"""
    )
    return found


async def test_a_set_that_is_saturated_is_not_shown_as_if_all_were_well(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, looking(stage) as eyes:
        page = eyes.page
        row = page.locator("#sets tr", has_text="127.0.0.1").first
        await expect(row).to_contain_text("build –")
        stage.sets["a"].tells = json.dumps(
            {
                "build": "0.1.0+abc",
                "cores": 2.0,
                "cores_busy": 2.0,
                "tasks_waiting": 10,
                "oldest_wait_seconds": 75.2,
            }
        )
        await expect(row).to_contain_text("build 0.1.0+abc")
        await expect(row).to_contain_text("2 of 2")
        await expect(row).to_contain_text("10 waiting, 1 min 15 s")
        await expect(row).to_contain_text("saturated")
        await expect(page.locator("#legend")).to_contain_text(
            "saturated: 10 waiting, the first for 1 min 15 s"
        )
        if folder := os.environ.get("GC_SHOTS"):
            await page.screenshot(path=f"{folder}/saturated.png", full_page=True)
            await page.set_viewport_size({"width": 390, "height": 844})
            await page.screenshot(path=f"{folder}/saturated-narrow.png", full_page=True)
        stage.sets["a"].tells = json.dumps(
            {"build": "<b>2</b>", "cores": 2.0, "cores_busy": 0.5, "tasks_waiting": 0}
        )
        await expect(row).to_contain_text("build <b>2</b>")
        await expect(row).to_contain_text("0.5 of 2")
        await expect(row).not_to_contain_text("saturated")
