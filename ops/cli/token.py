"""`gcompute token`: make a bearer token for an account."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from typing import Annotated, Final

from ops.cli.command import Argument, BadParameter, Option
from ops.cli.session import JsonOption

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def token(
    name: Annotated[str, Argument(metavar="NAME", help="Lower-case letters, digits and dashes.")],
    operator: Annotated[
        bool,
        Option(
            ("--operator",),
            help="Make an operator's token: it may read /metrics and /v1/admin, but run nothing.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Make a bearer token: prints the secret for its user and the hash for the set's YAML. Nothing is stored.

    Examples:

        gcompute token acme

        gcompute token --operator router

        GC_TOKEN=$(gcompute token acme --json | jq -r .token)
    """
    if not _NAME.fullmatch(name):
        raise BadParameter(f"{name!r} is not lower-case letters, digits and dashes, 63 at most")
    # No underscores: the first one separates the name from the secret.
    secret = f"gc_{name}_{secrets.token_hex(24)}"
    digest = hashlib.sha256(secret.encode()).hexdigest()
    if as_json:
        kind = "operator" if operator else "account"
        print(json.dumps({kind: name, "token": secret, "token_hash": digest}))
        return 0
    print(f"token, shown only now:   {secret}")
    print("for each set's YAML:")
    print("  authentication: true")
    print(f'  {"operators" if operator else "accounts"}: {{{name}: {{token_hashes: ["{digest}"]}}}}')
    return 0
