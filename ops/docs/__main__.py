"""`python -m ops.docs`: write the generated references into the tree; a test compares them with the code."""

from __future__ import annotations

import inspect
from typing import Final

import msgspec

from ops.docs.router_settings import router_settings
from ops.docs.settings import table
from ops.setup.engine import ROOT
from scheduler.launchers.hardening import SlotLimits
from scheduler.launchers.nomad.settings import RegistrarSettings
from scheduler.registry.settings import RegistryConfig
from sets.callback_config import CallbacksConfig
from sets.config import OperatorConfig, RegistrationConfig, RemoteExecutorConfig, SetConfig
from sets.executor_config import ExecutorConfig, ShareConfig

REGISTRAR_SETTINGS: Final = ROOT / "sets/docs/registrar.md"
SET_SETTINGS: Final = ROOT / "sets/docs/settings.md"
ROUTER_SETTINGS: Final = ROOT / "router/docs/settings.md"


def set_settings() -> str:
    """Return the reference of a set's settings, as Markdown."""
    parts = [
        "# Settings of a set",
        "A set reads one YAML file (`gcompute set FILE`). An unknown setting, or one that appears twice, is an error.",
        "`python -m ops.docs` writes this page from `sets/config.py` and `sets/executor_config.py`; edit them instead.",
        table(SetConfig).rstrip(),
    ]
    for record in (
        OperatorConfig,
        CallbacksConfig,
        RegistryConfig,
        RegistrationConfig,
        RemoteExecutorConfig,
    ):
        parts += _section(f"## {record.__name__}", record)
    parts += _section("# Settings of an executor", ExecutorConfig)
    parts += _section("## ShareConfig", ShareConfig)
    return "\n\n".join(parts) + "\n"


def registrar_settings() -> str:
    """Return the reference of a registrar's settings, as Markdown."""
    parts = [
        "# Settings of a registrar",
        "A registrar reads one YAML file (`gcompute registrar FILE`). An unknown setting is an error.",
        "`python -m ops.docs` writes this page from `scheduler/launchers/nomad/settings.py`; edit that file instead.",
        table(RegistrarSettings).rstrip(),
        "## SlotLimits",
        (inspect.getdoc(SlotLimits) or "").split("\n\n")[0],
        inspect.cleandoc(SlotLimits.__doc__ or "").split("\n\n")[1],
    ]
    return "\n\n".join(parts) + "\n"


def _section(heading: str, record: type[msgspec.Struct]) -> list[str]:
    return [heading, inspect.cleandoc(record.__doc__ or "").split("\n\n")[0], table(record).rstrip()]


if __name__ == "__main__":
    SET_SETTINGS.write_text(set_settings(), encoding="utf-8")
    REGISTRAR_SETTINGS.write_text(registrar_settings(), encoding="utf-8")
    ROUTER_SETTINGS.write_text(router_settings(), encoding="utf-8")
