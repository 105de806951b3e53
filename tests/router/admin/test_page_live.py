"""The status page in a real browser, before a real router with traffic: what an operator sees and does."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, Route, expect

from tests.router.admin.live import Eyes, looking, rollout, staged

pytestmark = pytest.mark.timeout(120)
expect.set_options(timeout=20_000)

LONG = rollout("{weight: 10, hold: 1h}", "{pause: true}", "{weight: 50, hold: 1h}")
AWAY = ("ERR_CONNECTION_REFUSED", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET", "ERR_INCOMPLETE_CHUNKED")
TOKEN = "0123456789abcdef0123"
HOSTILE = '"><img src=x onerror="document.title=1"><script>document.title=2</script><b>'


async def order(page: Page, verb: str, why: str = "") -> None:
    """Press a button and confirm."""
    await page.click(f"[data-verb={verb}]")
    if why:
        await page.fill("#confirm-why", why)
    await page.click("#confirm-yes")
    await expect(page.locator("#confirm")).to_be_hidden()


async def bar(page: Page) -> dict[str, float]:
    """Each set's part of the bar in percent, as drawn."""
    shares: dict[str, float] = await page.evaluate(
        """() => {
            const whole = document.querySelector(".bar").getBoundingClientRect().width;
            return Object.fromEntries([...document.querySelectorAll(".bar .part")].map(
                (part) => [part.dataset.set, 100 * part.getBoundingClientRect().width / whole]));
        }"""
    )
    return shares


async def bar_becomes(page: Page, shares: dict[str, float]) -> None:
    """The bar moves to its new widths; it must come to these."""
    drawn: dict[str, float] = {}
    for _ in range(200):
        drawn = await bar(page)
        if drawn == pytest.approx(shares, abs=0.2):
            return
        await asyncio.sleep(0.05)
    assert drawn == pytest.approx(shares, abs=0.2)


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


async def test_nothing_is_ordered_without_confirmation(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": 100, "b": 0}, more=LONG) as stage, looking(stage) as eyes:
        page = eyes.page
        start, dialog = page.locator("[data-verb=start]"), page.locator("#confirm")
        posted: list[str] = []
        page.on("request", lambda request: posted.append(request.url) if request.method == "POST" else None)
        # With the keyboard alone. A second Enter, as of a key held too long, cancels.
        await start.focus()
        await page.keyboard.press("Enter")
        await expect(dialog).to_be_visible()
        await expect(page.locator("#confirm-no")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(dialog).to_be_hidden()
        await expect(start).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(dialog).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()
        assert posted == []
        assert (await stage.ask("/rollout"))["phase"] == "idle"

        await page.keyboard.press("Enter")
        await page.locator("#confirm-by").focus()
        await page.keyboard.type("jo")
        await page.keyboard.press("Tab")
        await page.keyboard.type("release 42")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Tab")
        await expect(page.locator("#confirm-yes")).to_be_focused()
        await page.keyboard.press("Space")
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
        # What the router refuses is told where it was asked for.
        await page.route("**/rollout/abort", lambda route: refuse(route))
        await page.click("[data-verb=abort]")
        eyes.expected = ("409",)
        await page.click("#confirm-yes")
        await expect(page.locator("#confirm-error")).to_contain_text("Not done: somebody was quicker")


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


async def test_what_a_start_would_do_is_told_before_it(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": 100, "b": 0}, more=LONG) as stage, stage.traffic(2):
        await stage.until("/curves", serial=1)
        async with looking(stage) as eyes:
            page, plan = eyes.page, eyes.page.locator("#plan")
            await expect(plan).to_contain_text("Releases b, compared with a. About 2 h, and 1 pause")
            await expect(plan).to_contain_text("a 90 %, b 10 %")
            await expect(plan).to_contain_text("requests a side")
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


async def refuse(route: Route) -> None:
    problem = {"title": "Not possible now", "detail": "somebody was quicker", "status": 409}
    await route.fulfill(status=409, content_type="application/problem+json", body=json.dumps(problem))


async def test_a_canary_that_fails_is_shown_to_fail(tmp_path: Path) -> None:
    plan = rollout("{weight: 50, hold: 1h}", abort_when="{min_requests: 40}")
    async with staged(tmp_path, {"a": 100, "b": 0}, more=plan) as stage, stage.traffic():
        await stage.ask("/rollout/start", {"by": "jo"})
        # Who comes late sees what was before.
        await stage.until("/curves", serial=3)
        await stage.until(verdict="pass", within_s=60.0)
        async with looking(stage) as eyes:
            page = eyes.page
            await expect(page.locator("[data-check=errors]")).to_contain_text("pass")
            await expect(page.locator("[data-check=errors]")).to_contain_text("+2.00 points")
            await expect(page.locator("[data-check=latency] .interval")).to_be_visible()
            await expect(page.locator("#show-cohorts")).to_have_attribute("aria-pressed", "true")
            for kind in ("errors", "latency", "requests"):
                for cohort in ("canary", "control"):
                    drawn = page.locator(f"[data-chart={kind}] path.curve.{cohort}:not(.thin)")
                    await expect(drawn).to_have_count(1)
            stage.sets["b"].error_rate = 0.7
            await expect(page.locator("#phase")).to_contain_text("aborted")
            await expect(page.locator("#checks")).to_contain_text("surely more than allowed")
            await expect(page.locator("#announcer")).to_contain_text("aborted")
            await bar_becomes(page, {"a": 100})
            label = page.locator("[data-chart=errors] svg")
            await label.focus()
            await page.keyboard.press("ArrowLeft")
            await expect(label).to_have_attribute("aria-label", re.compile("canary"))
            await page.click("#show-sets")
            await expect(page.locator("[data-chart=requests] path.curve.set-0")).to_have_count(1)


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


async def test_the_token_is_asked_for_once_and_kept_in_this_tab(tmp_path: Path) -> None:
    async with staged(tmp_path, token=TOKEN) as stage, looking(stage, expected=("401",)) as eyes:
        page = eyes.page
        await page.fill("#login-token", "not the right one")
        await page.keyboard.press("Enter")
        await expect(page.locator("#login-error")).to_contain_text("not right")
        await expect(page.locator("#content")).to_be_hidden()
        await page.fill("#login-token", TOKEN)
        await page.keyboard.press("Enter")
        await expect(page.locator("#content")).to_be_visible()
        await page.reload()
        await expect(page.locator("#content")).to_be_visible()
        await expect(page.locator("#login")).to_be_hidden()
        assert TOKEN not in page.url
        assert await page.evaluate("JSON.stringify({...localStorage}) + document.cookie") == "{}"
        other = await page.context.new_page()
        await other.goto(stage.url)
        await expect(other.locator("#login")).to_be_visible()


async def test_hostile_words_stay_words(tmp_path: Path) -> None:
    """As names of sets (which the file would refuse), reasons, events, errors and orders."""
    async with staged(tmp_path, {"a": 100, "b": 0}, more=LONG) as stage, stage.traffic(1):
        await stage.ask("/rollout/start", {"by": HOSTILE, "why": HOSTILE})
        async with looking(stage) as eyes:
            page = eyes.page
            await page.route("**/status", lambda route: alter(route, hostile_status))
            await page.route("**/rollout", lambda route: alter(route, hostile_rollout))
            await page.route("**/curves?*", lambda route: alter(route, hostile_curves))
            await page.reload()
            for place in (
                "#legend",
                "#sets",
                "#alerts",
                "#version",
                "#phase",
                "#events",
                "#checks",
                "#charts",
            ):
                await expect(page.locator(place)).to_contain_text(HOSTILE)
            await expect(page.locator("#sets")).to_contain_text("__proto__")
            await page.click("[data-verb=abort]")
            await expect(page.locator("#confirm-title")).to_contain_text(HOSTILE)
            assert await page.locator("img, body script, body style, body [onerror]").count() == 0
            assert (await page.title()) not in ("1", "2")


async def test_even_a_mistake_of_ours_could_not_run_or_tell_anything(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, looking(stage, expected=("Content Security Policy",)) as eyes:
        page = eyes.page
        await expect(page.locator("#link-word")).to_have_text("● live")
        ran = await page.evaluate(
            """() => {
                const script = document.createElement("script");
                script.textContent = "window.ran = true";
                document.body.append(script);
                document.body.insertAdjacentHTML("beforeend", "<i onclick='window.ran = true'>x</i>");
                document.querySelector("i").click();
                return window.ran ?? false;
            }"""
        )
        assert ran is False
        told = await page.evaluate(
            "(url) => fetch(url, {mode: 'no-cors'}).then(() => true, () => false)",
            f"http://127.0.0.1:{stage.port}/x",
        )
        assert told is False
        assert stage.sets["a"].answered + stage.sets["b"].answered == 0
        eyes.foreign.clear()  # Asked for by this test, and blocked.


async def alter(route: Route, change: Any) -> None:
    answer = await route.fetch()
    document = await answer.json()
    change(document)
    await route.fulfill(status=200, content_type="application/json", body=json.dumps(document))


def hostile_status(status: dict[str, Any]) -> None:
    one = status["sets"]["a"]
    status["sets"] = {HOSTILE: {**one, "effective_weight": 60.0, "url": HOSTILE}}
    status["sets"] |= {name: {**one, "effective_weight": 20.0} for name in ("__proto__", "constructor")}
    status["config_error"] = f"line 1: {HOSTILE}"
    status["change"] = {"by": HOSTILE, "why": HOSTILE}


def hostile_rollout(status: dict[str, Any]) -> None:
    status["set"] = status["reason"] = HOSTILE
    status["checks"] = [
        {"name": HOSTILE, "verdict": HOSTILE, "reason": HOSTILE, "report_only": True, "difference": 1.0,
         "low": None, "high": None, "threshold": 2.0, "unit": HOSTILE, "canary": 1.0, "control": None,
         "side_unit": HOSTILE}
    ]  # fmt: skip


def hostile_curves(curves: dict[str, Any]) -> None:
    point = {"serial": 1, "age_s": 7, "span_s": 5, "cohorts": {}, "sets": {HOSTILE: [9, 1, 1.0, 2.0, 3.0]}}
    curves["points"] = [point, {**point, "serial": 2, "age_s": 2}]


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
                assert await page.evaluate("document.documentElement.scrollWidth") <= width
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
            for (const node of document.querySelectorAll("h1, h2, p, th, td, li, span, b, button:enabled, time")) {
                if (!node.checkVisibility() || !node.textContent.trim()) continue;
                const [a, b] = [light(parts(getComputedStyle(node).color)), light(behind(node))];
                const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
                if (ratio < 4.5) poor.push([node.tagName, node.className, node.textContent.slice(0, 30), ratio]);
            }
            return poor;
        }"""
    )
    return found


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
