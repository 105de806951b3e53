"""`gcompute key`: the pairs of keys that sign calls of the UGC API and log in to the registry."""

from __future__ import annotations

from typing import Annotated, Final

from ops.cli.account_book import (
    AccountArgument,
    DaysOption,
    FileOption,
    JsonOption,
    KeyFileOption,
    LabelOption,
    OpenBook,
    done,
    moment,
    on_the_book,
    show_pair,
)
from ops.cli.command import Argument, Entry, Group, Option

_HELP: Final = """Make, rotate and remove an account's pairs of keys. `gcompute account show ACCOUNT` lists them.

    Examples:

        gcompute key create acme --name laptop

        gcompute key rotate acme --overlap-hours 48

        gcompute key remove acme gck_acme_0f3a9c
"""

KeyArgument = Annotated[str, Argument(metavar="PUBLIC_KEY", help="The public key of the pair.")]


@on_the_book
def create(
    account: AccountArgument,
    name: LabelOption = "",
    days: DaysOption = None,
    file: FileOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> int:
    """Make a further pair of keys. The private key is shown only now; the other pairs stay valid.

    Examples:

        gcompute key create acme --name laptop --days 365
    """
    opened = OpenBook(file, key_file)
    expires_us = opened.in_days(days)
    pair = opened.change(lambda changes, book: changes.add_key(book, account, name, expires_us))
    return show_pair(account, pair, as_json)


@on_the_book
def rotate(
    account: AccountArgument,
    overlap_hours: Annotated[
        float,
        Option(
            ("--overlap-hours",), metavar="N", min=0, max=8760, help="How long the present pairs stay valid."
        ),
    ] = 24,
    file: FileOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> int:
    """Make a new pair of keys, and let all present ones expire after an overlap.

    Examples:

        gcompute key rotate acme --overlap-hours 48
    """
    opened = OpenBook(file, key_file)
    until_us = opened.now_us + round(overlap_hours * 3_600_000_000)
    pair = opened.change(lambda changes, book: changes.rotate_keys(book, account, until_us))
    if not as_json:
        print(f"the earlier keys of {account} are valid until {moment(until_us)}")
    return show_pair(account, pair, as_json)


@on_the_book
def remove(
    account: AccountArgument,
    public_key: KeyArgument,
    file: FileOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> int:
    """Remove a pair of keys, with all access tokens and log-ins that were made with it.

    Examples:

        gcompute key remove acme gck_acme_0f3a9c
    """
    OpenBook(file, key_file).change(
        lambda changes, book: (changes.remove_key(book, account, public_key), None)
    )
    return done(as_json, {"account": account, "removed": public_key}, f"{public_key} is worth nothing now")


key = Group(
    "key",
    None,
    (
        Entry("create", "ops.cli.keys:create"),
        Entry("rotate", "ops.cli.keys:rotate"),
        Entry("remove", "ops.cli.keys:remove"),
    ),
    help=_HELP,
)
