"""An image's USER as numbers, by the rules of container engines. Pure.

`/etc/passwd` and `/etc/group` come out of an image, so they may hold anything.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

PASSWD: Final = "/etc/passwd"
GROUP: Final = "/etc/group"

MAX_ID: Final = 2**31 - 1
"""The engine takes no larger uid or gid."""

_NUMBER: Final = re.compile(r"[+-]?[0-9]+", re.ASCII)
_MAX_DIGITS: Final = 20
_SHOWN_CHARS: Final = 64


class UserUnusable(ValueError):
    """The image's USER has no numbers."""


class Owner(msgspec.Struct, frozen=True):
    """The uid and gid that a slot's processes have and that its places belong to."""

    uid: int = 0
    gid: int = 0


class User(msgspec.Struct, frozen=True):
    """A USER as written: `user` and `group` are numbers or names; `group` is None where none was given."""

    user: int | str
    group: int | str | None = None

    def files_needed(self) -> tuple[str, ...]:
        """Return the files of the image that are needed to find the USER's numbers; none for root and for numbers.

        Root may write to its places whatever their group. A uid alone is enough, too: the places belong to it, so the
        primary group that /etc/passwd may name for it does not matter.
        """
        if self.user in (0, "root"):
            return ()
        return tuple(
            path for path, asked in ((PASSWD, self.user), (GROUP, self.group)) if isinstance(asked, str)
        )

    def owner(self, files: dict[str, bytes | None]) -> Owner:
        """`files` holds what `files_needed` names, None for one that the image does not have.

        Without a group it is the user's primary one. Raises `UserUnusable`.
        """
        if self.user in (0, "root"):
            return Owner(0, self.group if isinstance(self.group, int) else 0)
        gid = 0
        if isinstance(self.user, int):
            uid = self.user
        else:
            line = _line_of(self.user, files.get(PASSWD))
            if line is None:
                raise UserUnusable(
                    "its USER does not exist in the image "
                    f"(unable to find user {_shown(self.user)}: {_why(PASSWD, files)})"
                )
            uid, gid = _number(line, 2), _number(line, 3)
        if isinstance(self.group, int):
            gid = self.group
        elif self.group is not None:
            line = _line_of(self.group, files.get(GROUP))
            if line is None:
                raise UserUnusable(
                    "the group of its USER does not exist in the image "
                    f"(unable to find group {_shown(self.group)}: {_why(GROUP, files)})"
                )
            gid = _number(line, 2)
        _check_range(uid, gid)
        return Owner(uid, gid)


def home_of(uid: int, passwd: bytes | None) -> str:
    """Return a user's HOME as runc sets it if the image does not: that of the first line with this uid, else `/`. It
    may be empty or relative, as that line has it."""
    for line in (passwd or b"").split(b"\n"):
        if stripped := line.strip():
            fields = stripped.split(b":", 6)
            if fields[0] == b"%d" % uid or _number(fields, 2) == uid:
                return fields[5].decode("utf-8", "surrogateescape") if len(fields) > 5 else ""
    return "/"


def parse_user(text: str) -> User:
    """Parse USER as an image's configuration has it: `""`, `app`, `1000`, `app:users`, `1000:1000`, `:users`.

    Raises `UserUnusable` for numbers that are none of a user's.
    """
    # To the engine, more than one colon is no error.
    user, group = [*text.split(":"), ""][:2]
    parsed = User(_number_or_name(user) if user else 0, _number_or_name(group) if group else None)
    _check_range(*(part for part in (parsed.user, parsed.group) if isinstance(part, int)))
    return parsed


def _number_or_name(text: str) -> int | str:
    if not _NUMBER.fullmatch(text):
        return text
    return int(text) if len(text) <= _MAX_DIGITS else MAX_ID + 1


def _check_range(*numbers: int) -> None:
    if not all(0 <= number <= MAX_ID for number in numbers):
        raise UserUnusable(f"its USER is out of range (uids and gids must be in range 0-{MAX_ID})")


def _line_of(name: str, file: bytes | None) -> list[bytes] | None:
    """The fields of the first line that begins with this name."""
    begins = name.encode("utf-8", "replace") + b":"
    for line in (file or b"").split(b"\n"):
        stripped = line.strip()
        if stripped.startswith(begins):
            return stripped.split(b":", 4)
        if stripped == begins[:-1]:
            return [stripped]
    return None


def _number(line: list[bytes], field: int) -> int:
    """Return a field as a number; to the engine, a field that is missing or no number is 0."""
    text = line[field].decode("ascii", "replace") if field < len(line) else ""
    number = _number_or_name(text)
    return number if isinstance(number, int) else 0


def _shown(name: str) -> str:
    shown = name if len(name) <= _SHOWN_CHARS else name[:_SHOWN_CHARS] + "…"
    return shown if shown.isprintable() else ascii(shown)


def _why(path: str, files: dict[str, bytes | None]) -> str:
    if files.get(path) is None:
        return f"the image has no file {path}"
    return f"no matching entries in {path.rpartition('/')[2]} file"
