"""`gcompute router rollout …`: the automated release, told what to do and asked how it goes."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import Annotated, Any

import typer

from ops.cli import router_report
from ops.cli.router_admin import Admin
from ops.cli.router_session import (
    AdminOption,
    ByOption,
    JsonOption,
    TokenFileOption,
    as_json,
    operating,
    print_json,
    who,
)

_HELP_TEXT = """Release a set step by step, as the `rollout` section of the router's file says.

    Examples:

        gcompute router rollout start

        gcompute router rollout status --watch
"""

app = typer.Typer(
    no_args_is_help=True,
    help=_HELP_TEXT,
    pretty_exceptions_enable=False,
)

Why = Annotated[str, typer.Option(help="The reason, kept with the event.")]


def _order(verb: str, about: str, example: str) -> None:
    """Make a command of an order; all of them take the same options."""

    def command(
        ctx: typer.Context,
        why: Why = "",
        by: ByOption = None,
        json_: JsonOption = False,
        admin: AdminOption = None,
        token_file: TokenFileOption = None,
    ) -> int:
        _told(ctx, Admin.of(admin, token_file).tell_rollout(verb, who(by), why), json_)
        return 0

    command.__doc__ = f"{about}\n\n    Examples:\n\n        {example}\n    "
    app.command(verb)(operating(command))


_order("start", "Begin with the first step.", "gcompute router rollout start")
_order(
    "pause", "Stay at the present weight until `resume`.", 'gcompute router rollout pause --why "odd answers"'
)
_order("resume", "Go on after a pause.", "gcompute router rollout resume")
_order("skip", "Take the next step now, without waiting for the verdict.", "gcompute router rollout skip")


@app.command("abort")
@operating
def abort(
    ctx: typer.Context,
    at_once: Annotated[
        bool,
        typer.Option("--at-once", help="In one move, even where that floods the other sets."),
    ] = False,
    why: Why = "",
    by: ByOption = None,
    json_: JsonOption = False,
    admin: AdminOption = None,
    token_file: TokenFileOption = None,
) -> int:
    """Take the set's weight away again.

    Examples:

        gcompute router rollout abort --why "b loses tasks"
    """
    document = Admin.of(admin, token_file).tell_rollout("abort", who(by), why, at_once=at_once)
    _told(ctx, document, json_)
    return 0


@app.command("status")
@operating
def status(
    ctx: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing it, until Ctrl-C.")] = False,
    interval_s: Annotated[
        float, typer.Option("--interval", min=0.2, max=3600, help="Seconds between two looks.")
    ] = 1.0,
    json_: JsonOption = False,
    admin: AdminOption = None,
    token_file: TokenFileOption = None,
) -> int:
    """Show the steps, and each check with its difference, interval, threshold and verdict.

    Examples:

        gcompute router rollout status --watch
    """
    asked = Admin.of(admin, token_file)
    if not watch:
        _told(ctx, asked.rollout(), json_)
        return 0
    with suppress(KeyboardInterrupt):
        if as_json(ctx, json_) or not sys.stdout.isatty():
            while True:
                _told(ctx, asked.rollout(), json_)
                time.sleep(interval_s)
        router_report.watch(asked.rollout, interval_s, router_report.rollout_drawn)
    return 0


def _told(ctx: typer.Context, document: dict[str, Any], json_: bool) -> None:
    if as_json(ctx, json_):
        print_json(document)
    else:
        router_report.rollout(document)
