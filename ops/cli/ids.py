"""Finds a task by its id, or by the beginning or end of its id if only one task matches.

An id begins with its set's name and the time, so ids of one minute look alike; the last characters are random.
"""

import re
from collections.abc import Callable
from typing import Final, TypeVar

from ops.cli import report
from ops.cli.command import BadParameter
from ops.client import ApiProblem, Client

SHORTEST: Final = 4
"""Minimum number of characters that are accepted as part of an id."""

NEWEST: Final = 1000
"""Maximum number of tasks searched, newest first: ten pages of the list."""

_PAGE: Final = 100
_SHOWN: Final = 10
_WHOLE: Final = re.compile(r"[a-z0-9]{1,31}-[0-9a-z]{26}")
_UNKNOWN: Final = ("task-unknown", "callback-unknown", "router-unknown-task")

T = TypeVar("T")


def on_task(client: Client, given: str, call: Callable[[str], T]) -> T:
    """Return what `call` returns for the given id; if no task has that id, for the only task that matches it.

    Raises BadParameter if several tasks match, and the API's own refusal if none does.
    """
    try:
        return call(given)
    except ApiProblem as problem:
        if problem.name not in _UNKNOWN or len(given) < SHORTEST or _WHOLE.fullmatch(given):
            raise
        found = _fitting(client, given)
        if not found:
            report.say(f"no task among the newest {NEWEST} has an id that begins or ends with {given}")
            raise
    if len(found) > 1:
        names = ", ".join(found[:_SHOWN]) + (" and others" if len(found) > _SHOWN else "")
        raise BadParameter(
            f"{given!r} matches several tasks: {names}; give more characters of the id", param_hint="ID"
        )
    return call(found[0])


def _fitting(client: Client, part: str) -> list[str]:
    """Return the ids among the newest tasks that begin or end with the text."""
    found: list[str] = []
    before: str | None = None
    for _ in range(NEWEST // _PAGE):
        page = client.tasks(before=before, limit=_PAGE)
        ids = [task["id"] for task in page["tasks"]]
        found += [each for each in ids if each.startswith(part) or each.endswith(part)]
        if page.get("partial"):
            report.say(
                f"of the sets, {', '.join(page.get('sets') or ['none'])} alone answered: looked only there"
            )
        if page.get("next") in (None, before) or len(found) > _SHOWN:
            break
        before = page["next"]
    return found
