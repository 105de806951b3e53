"""The status page before hostile words, and before a mistake of ours: nothing runs, nothing is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.async_api import expect

from tests.router.admin.browser import alter, looking
from tests.router.admin.live import LONG, staged

HOSTILE = '"><img src=x onerror="document.title=1"><script>document.title=2</script><b>'


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
                "#waits",
                "#sight",
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


def hostile_status(status: dict[str, Any]) -> None:
    one = status["sets"]["a"]
    status["sets"] = {HOSTILE: {**one, "effective_weight": 60.0, "url": HOSTILE}}
    status["sets"] |= {name: {**one, "effective_weight": 20.0} for name in ("__proto__", "constructor")}
    status["config_error"] = f"line 1: {HOSTILE}"
    status["change"] = {"by": HOSTILE, "why": HOSTILE}


def hostile_rollout(status: dict[str, Any]) -> None:
    status["set"] = status["reason"] = HOSTILE
    status["waits"] = {"for": HOSTILE, "at_most_s": 5.0, "then": HOSTILE}
    status["open"] = {side: {"requests": 1, "oldest_s": 2.0} for side in ("canary", "control")}
    names = ("kind", "id", "set", "status", "request", "image")
    status["witnesses"] = [dict.fromkeys(names, HOSTILE) | {"duration_s": 1.0}]
    status["checks"] = [
        {"name": HOSTILE, "verdict": HOSTILE, "reason": HOSTILE, "report_only": True, "difference": 1.0,
         "low": None, "high": None, "threshold": 2.0, "unit": HOSTILE, "canary": 1.0, "control": None,
         "side_unit": HOSTILE}
    ]  # fmt: skip


def hostile_curves(curves: dict[str, Any]) -> None:
    point = {"serial": 1, "age_s": 7, "span_s": 5, "cohorts": {}, "sets": {HOSTILE: [9, 1, 1.0, 2.0, 3.0]}}
    curves["points"] = [point, {**point, "serial": 2, "age_s": 2}]
