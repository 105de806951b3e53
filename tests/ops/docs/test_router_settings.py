"""The reference of the operators' file: up to date, and its defaults are those that the router uses."""

from __future__ import annotations

import pytest

from ops.docs.__main__ import ROUTER_SETTINGS
from ops.docs.router_settings import SECTIONS, router_settings
from router.config.reader import load
from router.config.rollout_settings import ABORT_WHEN, ROLLOUT
from router.config.settings import ACCESS_LOG, DEFAULT, HEALTH, RETRY, TIMEOUTS, Section
from router.routing.table import Table
from router.wire.limits import Limits

FILE = """version: 1
sets: {a: {url: "http://127.0.0.1:1"}, b: {url: "http://127.0.0.1:2"}}
"""
WEIGHTS = "weights: {a: 100, b: 0}"
STEPS = "set: b, steps: [{weight: 5}]"


def table(**sections: str) -> Table:
    sections = {"default": WEIGHTS, **sections}
    return load((FILE + "".join(f"{name}: {{{text}}}\n" for name, text in sections.items())).encode()).table


def told(section: Section) -> str:
    """The section as the reference tells its defaults."""
    return ", ".join(f"{each.name}: {each.default}" for each in section.settings if each.default)


def test_the_page_in_the_tree_is_what_the_code_says() -> None:
    assert ROUTER_SETTINGS.read_text(encoding="utf-8") == router_settings(), "run `python -m ops.docs`"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.where or "file")
def test_every_setting_has_a_meaning(section: Section) -> None:
    assert all(each.meaning.endswith(".") for each in section.settings)
    assert len(set(section.names)) == len(section.names)


def test_the_defaults_told_are_the_defaults_used() -> None:
    usual = table()
    written = table(
        default=f"{WEIGHTS}, {told(DEFAULT)}",
        health=told(HEALTH),
        retry=told(RETRY),
        access_log=told(ACCESS_LOG),
    )
    assert (written.health, written.retry, written.access_log) == (
        usual.health,
        usual.retry,
        usual.access_log,
    )
    assert written.key_parts == usual.key_parts


def test_the_timeouts_told_are_those_of_a_process() -> None:
    given = table(timeouts=told(TIMEOUTS)).timeouts
    assert set(given.given_s) == set(TIMEOUTS.names)
    assert Limits(header_s=1.0).with_times(given.given_s) == Limits()


def test_the_rollouts_defaults_told_are_those_used() -> None:
    usual = table(rollout=STEPS).rollout
    written = table(rollout=f"{STEPS}, {told(ROLLOUT)}, abort_when: {{{told(ABORT_WHEN)}}}").rollout
    assert usual is not None
    assert written == usual
