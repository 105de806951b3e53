"""`gcompute router rollout …`: controls the automated release and shows its state."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final

from ops.cli import exits, report, router_offline, router_plan, router_progress, router_status
from ops.cli.command import BadParameter, Context, Entry, Group, Option
from ops.cli.router_admin import Admin
from ops.cli.router_look import NameOption
from ops.cli.router_session import (
    AdminOption,
    ByOption,
    FileOption,
    JsonOption,
    TokenFileOption,
    as_json,
    operating,
    print_json,
    who,
)

Why = Annotated[str, Option(help="The reason, kept with the event.")]
IfStep = Annotated[
    int | None,
    Option(min=1, metavar="N", help="Do this only if the rollout is still at this step."),
]
IfPhase = Annotated[
    str | None,
    Option(metavar="PHASE", help="Do this only if the rollout is still in this phase, as `status` names it."),
]
Force = Annotated[
    bool,
    Option(("--force",), help="Also where no set is left that is up and would take new requests."),
]
StateDir = Annotated[
    Path | None,
    Option(
        ("--state-dir",),
        metavar="DIR",
        help="Write the order into this --state-dir of a router, which need not run.",
    ),
]


def _order(verb: str, about: str, example: str) -> Callable[..., int]:
    """Make a command for an order; all of them take the same options."""

    def command(
        ctx: Context,
        force: Force = False,
        why: Why = "",
        if_step: IfStep = None,
        if_phase: IfPhase = None,
        by: ByOption = None,
        json_: JsonOption = False,
        state_dir: StateDir = None,
        name: NameOption = "router",
        file: FileOption = None,
        admin: AdminOption = None,
        token_file: TokenFileOption = None,
    ) -> int:
        given = _given(if_step, if_phase)
        if state_dir is None:
            document = Admin.of(admin, token_file).tell_rollout(verb, who(by), why, force=force, given=given)
        elif verb == "promote":
            raise BadParameter("this needs a running router; `skip`, step by step, does not")
        else:
            document = router_offline.order(
                verb, state_dir, name, file, by=who(by), why=why, given=given, force=force
            )
        _told(ctx, document, json_)
        return 0

    command.__doc__ = f"{about}\n\n    Examples:\n\n        {example}\n    "
    return operating(command)


@operating
def start(
    ctx: Context,
    force: Force = False,
    why: Why = "",
    by: ByOption = None,
    json_: JsonOption = False,
    admin: AdminOption = None,
    token_file: TokenFileOption = None,
) -> int:
    """Show what the file's plan will do, and start its first step.

    Starts nothing if the plan changes in between.

    Examples:

        gcompute router rollout start --why "release 42"
    """
    asked = Admin.of(admin, token_file)
    document = asked.rollout()
    given: dict[str, Any] = {"run": document["run"], "event": document["event"]}
    if document["next"] is not None:
        given["plan"] = document["next"]["plan"]
        if not as_json(ctx, json_):
            _show(document["next"])
            print()
    _told(ctx, asked.tell_rollout("start", who(by), why, force=force, given=given), json_)
    return 0


@operating
def plan(
    ctx: Context,
    json_: JsonOption = False,
    admin: AdminOption = None,
    token_file: TokenFileOption = None,
) -> int:
    """Show what `start` would do now: steps, checks, duration at the present request rate. Starts nothing.

    Exits with 0, or with 75 if a start would be refused now.

    Examples:

        gcompute router rollout plan
    """
    document = Admin.of(admin, token_file).rollout()
    if as_json(ctx, json_):
        print_json(document["next"])
    elif document["next"] is not None:
        _show(document["next"])
    elif document["phase"] in ("idle", "aborted", "done"):
        report.say("the file in force has no `rollout` section; write the plan there")
    else:
        report.say(f"a rollout of {document['set']} is under way ({document['phase']}); see `status`")
    can = document["next"] is not None and document["next"]["refused"] is None
    return 0 if can else exits.TRY_AGAIN


pause = _order(
    "pause", "Stay at the present weight until `resume`.", 'gcompute router rollout pause --why "odd answers"'
)
resume = _order("resume", "Go on after a pause.", "gcompute router rollout resume")
skip = _order(
    "skip",
    "Take the next step now, without waiting for the verdict.",
    "gcompute router rollout skip --if-step 2",
)
promote = _order(
    "promote",
    "Take all remaining steps now: go to the last one's weight, without hold, check or gate.",
    'gcompute router rollout promote --why "the fix cannot wait"',
)
end = _order(
    "end",
    "Put the file's weights in force again, after a rollout that is done or aborted.",
    'gcompute router rollout end --why "b is mended"',
)


@operating
def abort(
    ctx: Context,
    at_once: Annotated[
        bool,
        Option(("--at-once",), help="In one move, even if that overloads the other sets."),
    ] = False,
    force: Force = False,
    why: Why = "",
    if_step: IfStep = None,
    if_phase: IfPhase = None,
    by: ByOption = None,
    json_: JsonOption = False,
    state_dir: StateDir = None,
    name: NameOption = "router",
    file: FileOption = None,
    admin: AdminOption = None,
    token_file: TokenFileOption = None,
) -> int:
    """Take the set's weight away again, move by move.

    Examples:

        gcompute router rollout abort --why "b loses tasks"

        gcompute router rollout abort --at-once --state-dir var/router
    """
    given = _given(if_step, if_phase)
    if state_dir is None:
        document = Admin.of(admin, token_file).tell_rollout(
            "abort", who(by), why, at_once=at_once, force=force, given=given
        )
    else:
        document = router_offline.order(
            "abort",
            state_dir,
            name,
            file,
            by=who(by),
            why=why,
            given=given,
            at_once=at_once,
            force=force,
        )
    _told(ctx, document, json_)
    return 0


@operating
def status(
    ctx: Context,
    watch: Annotated[bool, Option(("--watch", "-w"), help="Go on showing it, until Ctrl-C.")] = False,
    interval_s: Annotated[
        float, Option(("--interval",), min=0.2, max=3600, help="Seconds between two looks.")
    ] = 1.0,
    json_: JsonOption = False,
    state_dir: Annotated[
        Path | None,
        Option(metavar="DIR", help="Read this --state-dir of a router, which need not run."),
    ] = None,
    name: NameOption = "router",
    file: FileOption = None,
    admin: AdminOption = None,
    token_file: TokenFileOption = None,
) -> int:
    """Show the steps, and each check with difference, interval, threshold and verdict; also what `start` would do.

    Examples:

        gcompute router rollout status --watch
    """
    asked = Admin.of(admin, token_file)

    def look() -> dict[str, Any]:
        return asked.rollout() if state_dir is None else router_offline.status(state_dir, name, file)

    if not watch:
        _told(ctx, look(), json_)
        return 0
    with suppress(KeyboardInterrupt):
        if as_json(ctx, json_) or not sys.stdout.isatty():
            while True:
                _told(ctx, look(), json_)
                time.sleep(interval_s)
        router_status.watch(look, interval_s, router_progress.drawn_progress)
    return 0


def _show(ahead: dict[str, Any]) -> None:
    for line in router_plan.lines(ahead):
        print(line)


def _given(step: int | None, phase: str | None) -> dict[str, Any]:
    """Return the conditions of an order in the router's form."""
    return {name: value for name, value in (("step", step), ("phase", phase)) if value is not None}


def _told(ctx: Context, document: dict[str, Any], json_: bool) -> None:
    if as_json(ctx, json_):
        print_json(document)
    else:
        router_progress.progress(document)


_HELP_TEXT: Final = """Release a set step by step, as the `rollout` section of the router's file says.

    Examples:

        gcompute router rollout start

        gcompute router rollout status --watch
"""

rollout = Group(
    "rollout",
    None,
    [
        Entry(name, f"{__name__}:{name}")
        for name in ("plan", "start", "pause", "resume", "skip", "promote", "abort", "end", "status")
    ],
    help=_HELP_TEXT,
)
