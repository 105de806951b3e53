"""`gcompute account`: creates, lists, shows, limits and suspends accounts, in the file that all sets follow."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from ops.cli import report
from ops.cli.account_book import (
    AccountArgument,
    FileOption,
    JsonOption,
    KeyFileOption,
    OpenBook,
    done,
    moment,
    on_the_book,
    show_pair,
)
from ops.cli.command import Argument, Entry, Group, Option
from ops.cli.router_columns import columns

_HELP: Final = """Create, limit and suspend accounts. Every set follows the file, and sees a change within two seconds.

    Examples:

        gcompute account init

        gcompute account create acme

        gcompute account quota acme --cores 16 --kept-mib 20000

        gcompute account suspend acme --why "unpaid since May"
"""


@on_the_book
def init(file: FileOption = None, key_file: KeyFileOption = None, as_json: JsonOption = False) -> int:
    """Make a file without accounts, and its master key unless there is one.

    The master key encrypts the accounts' private keys and signs the file. Copy it to each set's machine, and keep it
    out of backups of the file.

    Examples:

        gcompute account init --file /etc/general-compute/accounts
    """
    from scheduler.accounts import sealing
    from scheduler.accounts.book_file import BookFile
    from scheduler.whole_file import write_whole

    book = OpenBook(file, key_file)
    if book.path.exists():
        raise FileExistsError(errno.EEXIST, "exists already", str(book.path))
    if not book.key_path.exists():
        write_whole(book.key_path, f"{sealing.new_key()}\n".encode())
    BookFile(book.path, sealing.load(book.key_path)).create()
    return done(
        as_json,
        {"file": str(book.path), "key_file": str(book.key_path)},
        f"made {book.path}; its master key is in {book.key_path}",
    )


@on_the_book
def create(
    name: Annotated[str, Argument(metavar="NAME", help="Lower-case letters, digits and dashes, 63 at most.")],
    file: FileOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> int:
    """Create an account, and print its first pair of keys. The private key is shown only now.

    Examples:

        gcompute account create acme

        gcompute account create acme --json | jq -r .private_key
    """
    pair = OpenBook(file, key_file).change(lambda changes, book: changes.create(book, name))
    return show_pair(name, pair, as_json)


@on_the_book
def list_(file: FileOption = None, key_file: KeyFileOption = None, as_json: JsonOption = False) -> int:
    """List all accounts.

    Examples:

        gcompute account list

        gcompute account list --json | jq -r '.accounts[] | select(.suspended) | .account'
    """
    book = OpenBook(file, key_file).look()
    if as_json:
        accounts = [_facts(name, account) for name, account in sorted(book.accounts.items())]
        return done(True, {"version": book.version, "accounts": accounts}, "")
    rows = [
        (
            name,
            moment(account.created_us),
            str(len(account.keys)),
            str(len(account.tokens)),
            "-" if account.suspension is None else report.plain(account.suspension.why),
        )
        for name, account in sorted(book.accounts.items())
    ]
    columns(("ACCOUNT", "CREATED", "KEYS", "TOKENS", "SUSPENDED"), rows, right=("KEYS", "TOKENS"))
    return 0


@on_the_book
def show(
    name: AccountArgument,
    file: FileOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show an account: its keys, tokens and quotas, without anything secret.

    Examples:

        gcompute account show acme
    """
    facts = _facts(name, OpenBook(file, key_file).look().account(name))
    if as_json:
        return done(True, facts, "")
    print(f"account:    {name}")
    print(f"created:    {facts['created_at']}")
    if facts["suspended"]:
        print(
            report.plain(f"suspended:  {facts['suspended']['why']} (its tasks {_fate(facts['suspended'])})")
        )
    for key in facts["keys"]:
        print(report.plain(f"key:        {key['public_key']}  {_until(key)}  {key['name']}".rstrip()))
    for token in facts["tokens"]:
        scopes = ",".join(token["scopes"])
        print(report.plain(f"token:      {token['id']}  {scopes}  {_until(token)}  {token['name']}".rstrip()))
    for quota, value in facts["quotas"].items():
        print(f"quota:      {quota} {value}")
    return 0


@on_the_book
def suspend(
    name: AccountArgument,
    why: Annotated[str, Option(metavar="TEXT", help="The reason; the account's users see it.")],
    tasks: Annotated[
        Literal["finish", "cancel"],
        Option(help="Let the tasks that were accepted end as usual, or cancel them."),
    ] = "finish",
    file: FileOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> int:
    """Let an account begin nothing new. It may still look at its tasks, results and bills.

    Examples:

        gcompute account suspend acme --why "unpaid since May"

        gcompute account suspend acme --why "stolen key" --tasks cancel
    """
    OpenBook(file, key_file).change(lambda changes, book: (changes.suspend(book, name, why, tasks), None))
    fate = _fate({"tasks": tasks})
    return done(
        as_json,
        {"account": name, "suspended": {"why": why, "tasks": tasks}},
        f"{name} may begin nothing new, within two seconds in every set; the tasks that it has {fate}",
    )


@on_the_book
def resume(
    name: AccountArgument,
    file: FileOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> int:
    """End a suspension.

    Examples:

        gcompute account resume acme
    """
    OpenBook(file, key_file).change(lambda changes, book: (changes.resume(book, name), None))
    return done(as_json, {"account": name, "suspended": None}, f"{name} may begin tasks again")


@on_the_book
def quota(
    name: AccountArgument,
    cores: Annotated[
        float | None, Option(metavar="N", min=0.01, help="Cores that its tasks use together.")
    ] = None,
    waiting: Annotated[int | None, Option(metavar="N", min=0, help="Tasks that wait.")] = None,
    kept_mib: Annotated[int | None, Option(("--kept-mib",), metavar="N", min=0, help="Storage.")] = None,
    requests_per_s: Annotated[
        float | None, Option(("--requests-per-s",), metavar="N", min=0.1, help="Requests.")
    ] = None,
    input_mib: Annotated[
        int | None, Option(("--input-mib",), metavar="N", min=0, help="The largest input of one task.")
    ] = None,
    images_mib: Annotated[
        int | None, Option(("--images-mib",), metavar="N", min=0, help="Images in the registry.")
    ] = None,
    unset: Annotated[
        list[str], Option(metavar="QUOTA", help="Let a quota follow the set's setting again, e.g. `cores`.")
    ] = [],  # noqa: B006
    file: FileOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> int:
    """Change an account's quotas, while everything runs. Each counts in every set by itself, images over all sets.

    Examples:

        gcompute account quota acme --cores 16 --waiting 50000

        gcompute account quota acme --unset cores
    """
    from msgspec.structs import asdict, replace

    from scheduler.accounts.account import Quotas
    from scheduler.accounts.book import Book, BookError, Changes

    given: dict[str, Any] = {
        "cpu_percent": None if cores is None else round(cores * 100),
        "waiting": waiting,
        "kept_mib": kept_mib,
        "requests_per_s": requests_per_s,
        "input_mib": input_mib,
        "images_mib": images_mib,
    }
    fields = {_word(field): field for field in given}
    for word in unset:
        if word not in fields:
            raise BookError(f"unset: {word!r:.80} is not one of {', '.join(fields)}")

    def change(changes: Changes, book: Book) -> tuple[Book, Quotas]:
        quotas = book.account(name).quotas
        quotas = replace(quotas, **{fields[word]: None for word in unset})
        quotas = replace(quotas, **{field: value for field, value in given.items() if value is not None})
        return changes.set_quotas(book, name, quotas), quotas

    quotas = OpenBook(file, key_file).change(change)
    facts = _quotas(asdict(quotas))
    words = ", ".join(f"{word} {value}" for word, value in facts.items()) or "those of the sets' settings"
    return done(as_json, {"account": name, "quotas": facts}, f"quotas of {name}: {words}")


@on_the_book
def rekey(file: FileOption = None, key_file: KeyFileOption = None, as_json: JsonOption = False) -> int:
    """Encrypt and sign everything with the first master key of the key file.

    To replace the master key: put a new one above the old one, on every set's machine; restart the sets; call this;
    remove the old one.

    Examples:

        gcompute account rekey
    """
    opened = OpenBook(file, key_file)
    opened.change(lambda changes, book: (changes.reseal(book), None))
    return done(as_json, {"master_key": opened.seal().key_id}, "sealed with the first master key")


@on_the_book
def restore(
    backup: Annotated[Path, Argument(metavar="FILE", help="The older file.", existing=True)],
    file: FileOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> int:
    """Make an older file of accounts the newest version: sets refuse one that is merely put back.

    Examples:

        gcompute account restore /mnt/backup/accounts
    """
    from scheduler.accounts.book import Book, Changes
    from scheduler.accounts.book_file import decode, read

    opened = OpenBook(file, key_file)
    old = decode(read(backup), opened.seal(), str(backup))

    def change(changes: Changes, book: Book) -> tuple[Book, int]:
        restored = changes.restore(book, old)
        return restored, restored.version

    version = opened.change(change)
    return done(as_json, {"version": version}, f"{backup} counts again, as version {version}")


def _facts(name: str, account: Any) -> dict[str, Any]:
    from msgspec.structs import asdict

    suspension = account.suspension
    return {
        "account": name,
        "created_at": moment(account.created_us),
        "suspended": None
        if suspension is None
        else {"since": moment(suspension.since_us), "why": suspension.why, "tasks": suspension.tasks},
        "keys": [
            {"public_key": public, "name": key.name, **_times(key)} for public, key in _oldest_first(account.keys)
        ],
        "tokens": [
            {"id": token_id, "name": token.name, "scopes": [str(scope) for scope in token.scopes], **_times(token)}
            for token_id, token in _oldest_first(account.tokens)
        ],
        "quotas": _quotas(asdict(account.quotas)),
    }  # fmt: skip


def _oldest_first(credentials: dict[str, Any]) -> list[tuple[str, Any]]:
    """Sort keys or tokens by the time when they were made; the file sorts them by name."""
    return sorted(credentials.items(), key=lambda item: item[1].created_us)


def _times(credential: Any) -> dict[str, str | None]:
    expires = None if credential.expires_us is None else moment(credential.expires_us)
    return {"created_at": moment(credential.created_us), "expires_at": expires}


def _quotas(fields: dict[str, Any]) -> dict[str, Any]:
    """The quotas that are set, in the words of the options."""
    return {
        _word(field): value / 100 if field == "cpu_percent" else value
        for field, value in fields.items()
        if value is not None
    }


def _word(field: str) -> str:
    return "cores" if field == "cpu_percent" else field.replace("_", "-")


def _until(credential: dict[str, Any]) -> str:
    return f"until {credential['expires_at']}" if credential["expires_at"] else "no end"


def _fate(suspended: dict[str, Any]) -> str:
    return "are cancelled" if suspended["tasks"] == "cancel" else "end as usual"


account = Group(
    "account",
    None,
    (
        Entry("init", "ops.cli.accounts:init"),
        Entry("create", "ops.cli.accounts:create"),
        Entry("list", "ops.cli.accounts:list_"),
        Entry("show", "ops.cli.accounts:show"),
        Entry("quota", "ops.cli.accounts:quota"),
        Entry("suspend", "ops.cli.accounts:suspend"),
        Entry("resume", "ops.cli.accounts:resume"),
        Entry("rekey", "ops.cli.accounts:rekey"),
        Entry("restore", "ops.cli.accounts:restore"),
    ),
    help=_HELP,
)
