"""`gcompute router`: start one, look at it, and change what it does. Each command's own module does the work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from ops.cli import router_edit, router_look, router_rollout, router_simulate, serve

_YAML = (".yaml", ".yml", ".json")
_HELP = ("-h", "--help")
_HELP_TEXT = """Start a router, look at it, and change what it does: weights, drains, releases, rollbacks.

    Examples:

        gcompute router ops/local/router.yaml

        gcompute router check router.yaml

        gcompute router set-weight b=10 --why "b has run a day at 5 %"

        gcompute router status --watch
"""


class RouterGroup(TyperGroup):
    """`gcompute router FILE` is short for `gcompute router start FILE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        first = args[0] if args else ""
        is_option = first.startswith("-") and first not in _HELP
        if first and first not in self.commands and (is_option or _is_file(first)):
            args = ["start", *args]
        return super().parse_args(ctx, args)


def _is_file(word: str) -> bool:
    return "/" in word or word.endswith(_YAML) or Path(word).exists()


app = typer.Typer(
    cls=RouterGroup,
    no_args_is_help=True,
    help=_HELP_TEXT,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": list(_HELP)},
)

_LOOK, _CHANGE = "Look", "Change (edits the operators' file; comments and layout stay)"

app.command("start")(serve.start_router)
app.command("check", rich_help_panel=_LOOK)(router_look.check)
app.command("diff", rich_help_panel=_LOOK)(router_look.diff)
app.command("status", rich_help_panel=_LOOK)(router_look.status)
app.command("history", rich_help_panel=_LOOK)(router_look.history)
app.command("set-weight", rich_help_panel=_CHANGE)(router_edit.set_weight)
app.command("drain", rich_help_panel=_CHANGE)(router_edit.drain)
app.command("maint", rich_help_panel=_CHANGE)(router_edit.maint)
app.command("ready", rich_help_panel=_CHANGE)(router_edit.ready)
app.command("rollback", rich_help_panel=_CHANGE)(router_edit.rollback)
app.command("simulate", rich_help_panel="Release")(router_simulate.simulate)
app.add_typer(router_rollout.app, name="rollout", rich_help_panel="Release")
