"""Shared by all `gcompute router …` commands: their options, their output, and their exit codes for errors."""

from __future__ import annotations

import functools
import getpass
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

from ops.cli import exits, report
from ops.cli.command import Context, Option, UsageError
from ops.cli.router_admin import AdminError, AdminRefused, AdminUnreachable
from ops.cli.session import Session
from ops.cli.streams import OutputFailed

_ROUTER: Final = "Which router"

AdminOption = Annotated[
    str | None,
    Option(
        ("--admin",),
        metavar="URL",
        help="The router's admin address; else GC_ADMIN_URL, else http://127.0.0.1:8081.",
        panel=_ROUTER,
    ),
]
TokenFileOption = Annotated[
    Path | None,
    Option(metavar="FILE", help="A file with the admin token; else GC_ADMIN_TOKEN.", panel=_ROUTER),
]
FileOption = Annotated[
    Path | None,
    Option(
        ("--file",),
        metavar="FILE",
        help="The file to edit; else GC_ROUTER_FILE, else the one that the router says it reads.",
        panel=_ROUTER,
    ),
]
WhyOption = Annotated[
    str | None, Option(help="The reason, kept in the file and the history; else the command itself.")
]
ByOption = Annotated[str | None, Option(help="Your name, for the history; else your login name.")]
JsonOption = Annotated[bool, Option(("--json",), help="Print JSON.")]

_OF_STATUS: Final = {
    401: exits.NOT_ALLOWED,
    403: exits.NOT_ALLOWED,
    404: exits.NO_INPUT,
    409: exits.TRY_AGAIN,
    503: exits.UNAVAILABLE,
}


def who(by: str | None) -> str:
    """Return the login name of the person who edits, also under sudo."""
    if by:
        return by
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def as_json(ctx: Context, own: bool) -> bool:
    """True if --json was given, before the command or after it."""
    root = ctx.find_root().obj
    return own or (isinstance(root, Session) and root.as_json)


def operating(command: Callable[..., int]) -> Callable[..., int]:
    """Wrap a command: its errors say what to do, and its exit codes are those of ops.cli.exits."""

    @functools.wraps(command)
    def wrapper(*arguments: Any, **options: Any) -> int:
        try:
            code = command(*arguments, **options)
        except (OutputFailed, UsageError):
            raise
        except Exception as error:
            code = _code(error)
            for line in getattr(error, "mistakes", (error,)):
                report.say(str(line))
            hint = getattr(error, "hint", "")
            if hint:
                report.say(f"hint: {hint}", prefix="")
        return code

    return wrapper


def _code(error: Exception) -> int:
    """Return the exit code for an expected error; raise any other again."""
    match error:
        case AdminUnreachable():
            return exits.UNAVAILABLE
        case AdminRefused():
            return _OF_STATUS.get(error.status, exits.SOFTWARE)
        case AdminError():
            return exits.USAGE
    # Imported here because it loads slowly.
    from router.config.edit import EditError
    from router.config.history import HistoryError
    from router.config.reader import ConfigError
    from router.errors import RouterError
    from router.rollout.states import NotAllowed

    match error:
        case ConfigError():
            return exits.CONFIG
        case HistoryError():
            return exits.NO_INPUT
        case EditError():
            return exits.DATA
        case NotAllowed():
            return exits.TRY_AGAIN
        case RouterError():
            return exits.SOFTWARE
    raise error


def print_json(document: Any) -> None:
    print(json.dumps(document, ensure_ascii=False))
