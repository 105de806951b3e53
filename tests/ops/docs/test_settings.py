"""The references of settings: generated from the records, complete, and up to date in the tree."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta

from ops.docs.__main__ import REGISTRAR_SETTINGS, SET_SETTINGS, registrar_settings, set_settings
from ops.docs.settings import table
from sets.config import SetConfig


class Oven(msgspec.Struct):
    """An example."""

    name: str
    """What it is called."""
    heat_s: Annotated[float, Meta(gt=0, le=3600)] = 60
    """How long it heats,
    at most."""
    colour: Literal["red", "blue"] | None = None
    """By default that of the kitchen."""


def test_a_row_has_type_unit_default_and_meaning() -> None:
    assert table(Oven).splitlines()[2:] == [
        "| `name` | text |  | required | What it is called. |",
        "| `heat_s` | number above 0 to 3,600 | s | `60` | How long it heats, at most. |",
        "| `colour` | `red`, `blue` |  | see meaning | By default that of the kitchen. |",
    ]


def test_a_setting_without_a_docstring_is_refused() -> None:
    class Bare(msgspec.Struct):
        heat_s: float

    with pytest.raises(ValueError, match=r"Bare\.heat_s needs a docstring"):
        table(Bare)


def test_the_page_in_the_tree_is_what_the_code_says() -> None:
    assert SET_SETTINGS.read_text(encoding="utf-8") == set_settings(), "run `python -m ops.docs`"
    for name in SetConfig.__struct_fields__:
        assert f"`{name}`" in set_settings()


def test_the_page_of_the_registrar_is_what_the_code_says() -> None:
    assert REGISTRAR_SETTINGS.read_text(encoding="utf-8") == registrar_settings(), "run `python -m ops.docs`"
