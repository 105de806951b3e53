"""The page of all bounds names the settings that there are, with their defaults, and leaves none out."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from scheduler.accounts.account import Quotas
from sets.config import SetConfig

PAGE = (Path(__file__).parents[2] / "sets" / "docs" / "bounds.md").read_text(encoding="utf-8")
ROWS = [line.split("|")[3] for line in PAGE.splitlines() if line.startswith("| ")]
NAMED = {name for cell in ROWS if "parameter" not in cell for name in re.findall(r"`([a-z_]+)`", cell)}
SETTINGS = {field.name: field for field in msgspec.structs.fields(SetConfig)}
OF_ACCOUNTS = {field.name for field in msgspec.structs.fields(Quotas)}


def test_each_setting_that_it_names_exists() -> None:
    assert NAMED - set(SETTINGS) - OF_ACCOUNTS == set()


def test_each_setting_of_a_maximum_is_there() -> None:
    maximums = {name for name in {*SETTINGS, *OF_ACCOUNTS} if name.startswith(("max_", "min_", "low_"))}
    assert len(maximums) > 20
    assert maximums - NAMED == set()


@pytest.mark.parametrize(
    ("name", "value", "shift"),
    [
        (name, value.replace(",", ""), {"GiB": 10, "": 0, "MiB": 0}[unit])
        for cell in ROWS
        for name, value, unit in re.findall(
            r"`(max_[a-z_]+|low_[a-z_]+|min_[a-z_]+)`: ([0-9,]*[0-9]) ?(GiB|MiB|)", cell
        )
        if not name.endswith("_kib")
    ],
)
def test_its_defaults_are_true(name: str, value: str, shift: int) -> None:
    assert SETTINGS[name].default == int(value) << shift
