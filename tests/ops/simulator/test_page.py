"""The report as a page: it is one file, and no text of a scenario becomes a part of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from playwright.async_api import expect

from ops.simulator.page import page
from ops.simulator.play import Play
from ops.simulator.report import Report, report_of
from ops.simulator.scenario import read
from tests.router.admin.browser import browser

SCENARIO = """
about: A <b>bold</b> minute </script><script>alert(1)</script> {{STYLE}}
length_s: 60
intervals: 6
nodes: [{name: plain, cores: 4, memory_mib: 8192, max_slots: 8}]
images: [{name: cat, duration_s: 1}]
accounts: [{name: ada, arrivals: {per_s: 1}, images: {cat: 1}}]
"""


def report(folder: Path) -> Report:
    file = folder / "minute.yaml"
    file.write_text(SCENARIO)
    scenario = read(file)
    return report_of("minute", scenario, Play(scenario).run(), 0.1)


def test_the_page_holds_the_whole_report(tmp_path: Path) -> None:
    found = report(tmp_path)
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page(found))
    assert json.loads(data) == json.loads(json.dumps({**found.document(), "good": True}))


def test_no_text_of_the_scenario_is_run(tmp_path: Path) -> None:
    text = page(report(tmp_path))
    assert text.count("<script") == text.count("</script>") == 2
    assert "<b>bold</b>" not in text
    assert "<title>minute: A &lt;b&gt;bold" in text
    assert text.count(":root {") == 2, "the style is in the page once, in two colour schemes"


def test_the_page_needs_no_other_file(tmp_path: Path) -> None:
    text = page(report(tmp_path))
    assert not re.search(r"\b(src|href|import)\s*=|@import|url\(", text)
    assert set(re.findall(r"https?://[^\s\"']+", text)) == {"http://www.w3.org/2000/svg"}


async def test_a_browser_draws_it_without_complaint(tmp_path: Path) -> None:
    file = tmp_path / "minute.html"
    file.write_text(page(report(tmp_path)))
    async with browser() as chromium:
        tab = await chromium.new_page()
        complaints: list[str] = []
        tab.on("console", lambda said: complaints.append(said.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        await tab.goto(file.as_uri())
        await expect(tab.locator("#plots figure")).to_have_count(8)
        await expect(tab.locator("#about")).to_contain_text("A <b>bold</b> minute")
        await expect(tab.locator("#readout")).to_contain_text("the whole run, all accounts")
        await tab.locator("#accounts tbody tr").first.click()
        await expect(tab.locator("#plots figure").first).to_contain_text("Waits of ada")
        await tab.locator("#plots svg").first.hover()
        await expect(tab.locator("#readout")).to_contain_text("0:00:20 to 0:00:30, ada")
        assert complaints == []
