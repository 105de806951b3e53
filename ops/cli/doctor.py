"""`gcompute doctor`: what is wrong with this machine or cluster, and how to mend it."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from ops.cli import report
from ops.cli.command import Context, Option
from ops.cli.router_admin import Admin
from ops.cli.router_session import JsonOption, as_json

if TYPE_CHECKING:
    from ops.doctor.finding import Told

WRONG: Final = 1
"""Exit code where something is wrong."""
_SIGNS: Final = {"ok": "✓", "warn": "!", "fail": "✗", "unknown": "–"}


def doctor(
    ctx: Context,
    sets: Annotated[
        list[Path] | None, Option(("--set",), metavar="FILE", help="Examine a set (repeatable).")
    ] = None,
    routers: Annotated[
        list[Path] | None,
        Option(("--router",), metavar="FILE", help="Examine a router and the sets in its file (repeatable)."),
    ] = None,
    executors: Annotated[
        list[Path] | None,
        Option(("--executor",), metavar="FILE", help="Examine the executor of this machine (repeatable)."),
    ] = None,
    registrars: Annotated[
        list[Path] | None,
        Option(
            ("--registrar",),
            metavar="FILE",
            help="Examine a registrar and its Nomad cluster; run it as the registrar's user (repeatable).",
        ),
    ] = None,
    admin: Annotated[
        str | None,
        Option(
            metavar="URL", help="The router's admin address; else GC_ADMIN_URL, else http://127.0.0.1:8081."
        ),
    ] = None,
    json_: JsonOption = False,
) -> int:
    """Say what is wrong with this machine, and with the parts whose files are named, and how to mend it.

    Prints each check with its result: ✓ right, ! doubtful, ✗ wrong, – not checked; → says how to mend it. In a pipe
    each check is one line. No line shows a secret. Exits with 1 if anything is wrong. It changes nothing. Run it as
    root, and a registrar's checks as the registrar's user. Where sets or routers want a token of operators, set
    GC_OPERATOR_TOKEN and GC_ADMIN_TOKEN.

    Examples:

        gcompute doctor

        gcompute doctor --set /etc/general-compute/set-a.yaml --executor /etc/general-compute/executor.yaml

        gcompute doctor --router ops/local/router.yaml --json
    """
    from ops.doctor.examination import Asked, checks
    from ops.doctor.finding import Level, examine

    # Raises `AdminError` for an address that is none; only a router's checks need it.
    router = Admin.of(admin, None) if routers else None
    asked = Asked(
        tuple(sets or ()),
        tuple(routers or ()),
        tuple(executors or ()),
        tuple(registrars or ()),
        router.url if router else None,
        router.token if router else None,
    )
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    counts = dict.fromkeys(Level, 0)
    document = []
    part = ""
    for told in examine(checks(asked)):
        found = told.finding
        counts[found.level] += 1
        if as_json(ctx, json_):
            document.append(
                {
                    "part": told.part,
                    "check": told.check,
                    "level": str(found.level),
                    "text": found.text,
                    "mend": found.mend,
                }
            )
            continue
        if told.part != part:
            part = told.part
            print(report.plain(part))
        for line in lines(told, width):
            print(line, flush=True)
    bad = counts[Level.FAIL]
    if as_json(ctx, json_):
        print(json.dumps({"ok": not bad, "findings": document}, ensure_ascii=False))
    else:
        print(
            f"{report.counted(bad, 'problem')}, {report.counted(counts[Level.WARN], 'doubt')}, "
            f"{report.counted(counts[Level.UNKNOWN], 'check')} not made, {counts[Level.OK]} in order"
        )
    return WRONG if bad else 0


def lines(told: Told, width: int | None) -> list[str]:
    """Return a finding as text. `width`: characters of a line, at least 40; None: one line, however long."""
    found = told.finding
    said = report.plain(f"{_SIGNS[found.level]} {told.check}: {found.text}".replace("\n", " "))
    mend = report.plain(f"→ {found.mend}".replace("\n", " ")) if found.mend else ""
    if width is None:
        return [f"  {said}  {mend}".rstrip()]
    return [*_wrapped(said, width, "  "), *(_wrapped(mend, width, "    ") if mend else ())]


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        max(40, width),
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        # A word of a command must not be torn.
        break_long_words=False,
        break_on_hyphens=False,
    )
