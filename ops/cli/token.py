"""`gcompute token`: the bearer tokens of accounts, and those of operators."""

from __future__ import annotations

import secrets
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
    on_the_book,
    secret,
)
from ops.cli.command import Argument, BadParameter, Entry, Group, Option

_HELP: Final = """Make and remove bearer tokens. `gcompute account show ACCOUNT` lists an account's.

    Examples:

        gcompute token create acme --name ci --scope run

        GC_TOKEN=$(gcompute token create acme --json | jq -r .token)

        gcompute token operator router
"""


@on_the_book
def create(
    account: AccountArgument,
    name: LabelOption = "",
    scope: Annotated[
        list[str],
        Option(
            metavar="SCOPE",
            help="`run`: run tasks and look at them; `read`: only look; `images`: push and delete images. By default "
            "run and images.",
        ),
    ] = [],  # noqa: B006
    days: DaysOption = None,
    file: FileOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> int:
    """Make a bearer token of an account. It is shown only now; the file of accounts holds its hash.

    Examples:

        gcompute token create acme --name ci --days 90

        gcompute token create acme --name dashboard --scope read
    """
    from scheduler.accounts.account import Scope
    from scheduler.accounts.book import BookError

    try:
        scopes = tuple(Scope(word) for word in scope) or (Scope.RUN, Scope.IMAGES)
    except ValueError as error:
        raise BookError(f"scope: {error}; the scopes are {', '.join(Scope)}") from None
    opened = OpenBook(file, key_file)
    expires_us = opened.in_days(days)
    made = opened.change(lambda changes, book: changes.add_token(book, account, name, scopes, expires_us))
    if as_json:
        return done(True, {"account": account, "id": made.token_id, "token": made.token}, "")
    secret(f"token:  {made.token}    (shown only now)")
    return 0


@on_the_book
def remove(
    account: AccountArgument,
    token_id: Annotated[str, Argument(metavar="ID", help="The token's id, as `account show` prints it.")],
    file: FileOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> int:
    """Remove a bearer token: within two seconds no set takes it.

    Examples:

        gcompute token remove acme 0f3a9c11d2e4
    """
    OpenBook(file, key_file).change(
        lambda changes, book: (changes.remove_token(book, account, token_id), None)
    )
    return done(
        as_json, {"account": account, "removed": token_id}, f"the token {token_id} is worth nothing now"
    )


def operator(
    name: Annotated[str, Argument(metavar="NAME", help="Lower-case letters, digits and dashes.")],
    as_json: JsonOption = False,
) -> int:
    """Make an operator's token: it may read /metrics and /v1/admin of a set, but run nothing.

    Prints the token for its user and its hash for the set's YAML. Nothing is stored.

    Examples:

        gcompute token operator router
    """
    from scheduler.accounts.account import ACCOUNT_NAME
    from scheduler.accounts.book import hash_of

    if not ACCOUNT_NAME.fullmatch(name):
        raise BadParameter(f"{name!r} is not lower-case letters, digits and dashes, 63 at most")
    # No underscores: the first one separates the name from the secret.
    token = f"gc_{name}_{secrets.token_hex(24)}"
    digest = hash_of(token)
    if as_json:
        return done(True, {"operator": name, "token": token, "token_hash": digest}, "")
    print(f"token, shown only now:   {token}")
    print("for each set's YAML:")
    print("  authentication: true")
    print(f'  operators: {{{name}: {{token_hashes: ["{digest}"]}}}}')
    return 0


token = Group(
    "token",
    None,
    (
        Entry("create", "ops.cli.token:create"),
        Entry("remove", "ops.cli.token:remove"),
        Entry("operator", "ops.cli.token:operator"),
    ),
    help=_HELP,
)
