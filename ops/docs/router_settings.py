"""Turns the router's described settings into Markdown: a table for each section."""

from __future__ import annotations

from typing import Final

from router.config.rollout_settings import ABORT_WHEN, ROLLOUT, STEP
from router.config.settings import (
    ACCESS_LOG,
    DEFAULT,
    DISCOVERY,
    FILE,
    HEALTH,
    RETRY,
    RULE,
    SET,
    TIMEOUTS,
    WHEN,
    Kind,
    Section,
    Setting,
)

SECTIONS: Final = (
    FILE,
    SET,
    DISCOVERY,
    RULE,
    WHEN,
    DEFAULT,
    HEALTH,
    RETRY,
    TIMEOUTS,
    ACCESS_LOG,
    ROLLOUT,
    STEP,
    ABORT_WHEN,
)
_UNITS_S: Final = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def router_settings() -> str:
    """Return the reference of the operators' file, as Markdown."""
    parts = [
        "# Settings of the router",
        "A router reads one YAML file (`gcompute router FILE`). An unknown setting, or one that appears twice, is a "
        "mistake; `gcompute router check FILE` lists all mistakes with their places.",
        "`python -m ops.docs` writes this page from `router/config/settings.py` and `rollout_settings.py`; edit those "
        "files instead.",
    ]
    for section in SECTIONS:
        if section.where:
            parts.append(f"## `{section.where}`")
        parts += [section.meaning, _table(section)]
    return "\n\n".join(parts) + "\n"


def _table(section: Section) -> str:
    rows = ["| setting | value | default | meaning |", "|---|---|---|---|"]
    for each in section.settings:
        default = "required" if each.required else f"`{each.default}`" if each.default else ""
        rows.append(f"| `{each.name}` | {_value(each)} | {default} | {each.meaning} |")
    return "\n".join(rows)


def _value(setting: Setting) -> str:
    if setting.kind is Kind.OTHER:
        return ""
    if not setting.most:
        return setting.kind.value
    if setting.kind is Kind.DURATION:
        return f"time, {_duration(setting.least)} to {_duration(setting.most)}"
    if setting.kind is Kind.SIZE:
        return f"size, to {setting.most / 1024:,.0f} KiB"
    return f"{setting.kind.value}, {setting.least:,.0f} to {setting.most:,.0f}"


def _duration(seconds: float) -> str:
    """The largest unit in which it is whole."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:g} ms"
    unit, size = next((unit, size) for unit, size in _UNITS_S if seconds % size == 0)
    return f"{seconds / size:g} {unit}" if seconds else "0 s"
