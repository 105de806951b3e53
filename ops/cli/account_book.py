"""Opens the file of accounts for the commands that change it, and maps its errors to exit codes."""

from __future__ import annotations

import functools
import json
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from ops.cli import exits, report
from ops.cli.command import Argument, Option

if TYPE_CHECKING:
    from scheduler.accounts.book import Book, Changes, NewKey
    from scheduler.accounts.sealing import Seal

F = TypeVar("F", bound=Callable[..., int])
T = TypeVar("T")

DEFAULT_FILE: Final = "/etc/general-compute/accounts"
_FILE_VARIABLE: Final = "GC_ACCOUNTS_FILE"
_DAY_US: Final = 86_400_000_000
_WAIT_FOR_LOCK_S: Final = 10.0

FileOption = Annotated[
    Path | None,
    Option(("--file",), metavar="FILE", help=f"The file of accounts; else {_FILE_VARIABLE}, else {DEFAULT_FILE}."),
]  # fmt: skip
KeyFileOption = Annotated[
    Path | None,
    Option(
        ("--key-file",),
        metavar="FILE",
        help="The master key; else the variable GC_ACCOUNTS_KEY, else the file of accounts with .key at its end.",
    ),
]
JsonOption = Annotated[bool, Option(("--json",), help="Print JSON.")]
AccountArgument = Annotated[str, Argument(metavar="ACCOUNT", help="The account's name.")]
DaysOption = Annotated[
    float | None, Option(("--days",), metavar="N", min=0.0001, max=36500, help="Valid for so many days; else for ever.")
]  # fmt: skip
LabelOption = Annotated[str, Option(("--name",), metavar="TEXT", help="A name, to tell it from others.")]


class OpenBook:
    """The file of accounts, and the moment of the command."""

    def __init__(self, file: Path | None, key_file: Path | None) -> None:
        self.path = file or Path(os.environ.get(_FILE_VARIABLE) or DEFAULT_FILE)
        self._key_file = key_file
        self.now_us = time.time_ns() // 1000

    @property
    def key_path(self) -> Path:
        """The file of the master key, if the environment does not hold it."""
        from scheduler.accounts.sealing import key_file_of

        return self._key_file or key_file_of(self.path)

    def seal(self) -> Seal:
        """The master key. Raises `SealError`."""
        from scheduler.accounts.sealing import load_for

        return load_for(self.path, self._key_file)

    def look(self) -> Book:
        """The book as it is."""
        from scheduler.accounts.book_file import BookFile

        return BookFile(self.path, self.seal()).look()

    def change(self, change: Callable[[Changes, Book], tuple[Book, T]]) -> T:
        """Make a change; waits a while for another command that is at work."""
        from scheduler.accounts.book import Changes
        from scheduler.accounts.book_file import BookFile
        from scheduler.lock import LockHeld

        seal = self.seal()
        changes = Changes(seal, self.now_us, lambda digits: secrets.token_hex(digits // 2))
        give_up_s = time.monotonic() + _WAIT_FOR_LOCK_S
        while True:
            try:
                return BookFile(self.path, seal).change(lambda book: change(changes, book))
            except LockHeld:
                if time.monotonic() >= give_up_s:
                    raise
                time.sleep(0.05)

    def in_days(self, days: float | None) -> int | None:
        """The moment in so many days, in microseconds since the epoch."""
        return None if days is None else self.now_us + round(days * _DAY_US)


def on_the_book(command: F) -> F:
    """Give a command that reads or writes the file of accounts its exit codes."""

    @functools.wraps(command)
    def call(*args: Any, **kwargs: Any) -> int:
        from scheduler.accounts.book import BookError
        from scheduler.accounts.book_file import BookUnreadable
        from scheduler.accounts.sealing import SealError
        from scheduler.lock import LockHeld

        try:
            return command(*args, **kwargs)
        except BookError as error:
            report.say(str(error))
            return exits.USAGE
        except LockHeld as error:
            report.say(f"{error}; try again")
            return exits.TRY_AGAIN
        except (BookUnreadable, SealError) as error:
            report.say(f"{error}")
            return exits.NO_INPUT
        except OSError as error:
            report.say(f"{error.filename}: {error.strerror}")
            return exits.IO

    return call  # type: ignore[return-value]


def moment(us: int | None) -> str:
    """A moment as text in UTC, or a dash for none."""
    return "-" if us is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(us // 1_000_000))


def done(as_json: bool, facts: dict[str, Any], said: str) -> int:
    """Print what a command did: facts as JSON, or a sentence."""
    print(json.dumps(facts) if as_json else report.plain(said))
    return 0


def show_pair(account: str, pair: NewKey, as_json: bool) -> int:
    """Print a new pair of keys."""
    if as_json:
        facts = {"account": account, "public_key": pair.public_key, "private_key": pair.private_key}
        return done(True, facts, "")
    secret(f"account:      {account}")
    secret(f"public key:   {pair.public_key}")
    secret(f"private key:  {pair.private_key}    (shown only now)")
    return 0


def secret(line: str) -> None:
    """Print a secret that is shown only once."""
    sys.stdout.write(f"{line}\n")
