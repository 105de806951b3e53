"""What every `gcompute router …` command shares: whom to ask, how to print, and how errors end."""

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
    Option(metavar="FILE", help="Where the admin token stands; else GC_ADMIN_TOKEN.", panel=_ROUTER),
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
ByOption = Annotated[str | None, Option(help="Who does it; else the name you are logged in with.")]
JsonOption = Annotated[bool, Option(("--json",), help="Print JSON.")]

_OF_STATUS: Final = {
    401: exits.NOT_ALLOWED,
    403: exits.NOT_ALLOWED,
    404: exits.NO_INPUT,
    409: exits.TRY_AGAIN,
    503: exits.UNAVAILABLE,
}


def who(by: str | None) -> str:
    """Who edits, also behind sudo."""
    if by:
        return by
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def as_json(ctx: Context, own: bool) -> bool:
    """Whether JSON was asked for, before the command or after it."""
    root = ctx.find_root().obj
    return own or (isinstance(root, Session) and root.as_json)


def operating(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command errors that say what to do, and exit codes as in ops.cli.exits."""

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
    """The exit code of an error that a command may end with; any other is raised again."""
    match error:
        case AdminUnreachable():
            return exits.UNAVAILABLE
        case AdminRefused():
            return _OF_STATUS.get(error.status, exits.SOFTWARE)
        case AdminError():
            return exits.USAGE
    # Heavy, and needed here only.
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
