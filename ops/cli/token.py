"""`gcompute token`: make a bearer token for an account."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from typing import Annotated

import typer

from ops.cli.session import JsonOption

_ACCOUNT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def token(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="Lower-case letters, digits and dashes.")],
    as_json: JsonOption = False,
) -> int:
    """Make a bearer token: the secret for its user, the hash for the set's YAML. Nothing is stored.

    Examples:

        gcompute token acme

        GC_TOKEN=$(gcompute token acme --json | jq -r .token)
    """
    if not _ACCOUNT.fullmatch(account):
        raise typer.BadParameter(f"{account!r} is not lower-case letters, digits and dashes, 63 at most")
    # An underscore would end the account's name where the secret is taken off it.
    secret = f"gc_{account}_{secrets.token_hex(24)}"
    digest = hashlib.sha256(secret.encode()).hexdigest()
    if as_json:
        print(json.dumps({"account": account, "token": secret, "token_hash": digest}))
        return 0
    print(f"token, shown only now:   {secret}")
    print("for each set's YAML:")
    print("  authentication: true")
    print(f'  accounts: {{{account}: {{token_hashes: ["{digest}"]}}}}')
    return 0
