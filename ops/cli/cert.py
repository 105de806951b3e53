"""`gcompute cert`: the certificates by which sets and executors know each other."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

from ops.cli import exits, report
from ops.cli.command import Argument, BadParameter, Entry, Group, Option

_SET: Final = re.compile(r"[a-z0-9]([a-z0-9]{0,30})")
_NODE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DAYS: Final = 397
_HELP: Final = """Make and renew the certificates by which sets and executors know each other.

    The folder after --out is what `link_certificates` of a set, or `certificates` of an executor, names. To renew a
    certificate, issue it again: both ends read it for each new connection. To replace the authority: rotate, copy
    ca.pem to every machine, issue all certificates again, retire, copy ca.pem again.

    Examples:

        gcompute cert ca /etc/general-compute/authority

        gcompute cert set a /etc/general-compute/authority --out certs/a

        gcompute cert executor n1 /etc/general-compute/authority --out certs/n1
"""

Folder = Annotated[
    Path, Argument(metavar="DIR", help="The authority's folder. Keep it off the machines it signs for.")
]
Out = Annotated[
    Path, Option(metavar="DIR", help="The folder to write ca.pem and identity.pem (with the key) into.")
]
Days = Annotated[
    int, Option(min=1, max=3650, metavar="N", help="How long the certificate is valid, in days.")
]


def make_ca(folder: Folder) -> int:
    """Make an authority: its key, which signs all certificates, and ca.pem.

    Examples:

        gcompute cert ca authority
    """
    from ops.certificates.authority import Authority

    return _done(Authority(folder).make, f"made {folder}/ca.pem; keep {folder}/ca-key.pem secret")


def issue_set(
    name: Annotated[str, Argument(metavar="NAME", help="The set's name.")],
    folder: Folder,
    out: Out,
    days: Days = _DAYS,
) -> int:
    """Issue, or renew, the certificate of a set.

    Examples:

        gcompute cert set a authority --out certs/a
    """
    from ops.certificates.authority import Authority

    if not _SET.fullmatch(name):
        raise BadParameter(f"{name!r} is not lower-case letters and digits, 31 at most")
    return _done(lambda: Authority(folder).issue_to_set(name, out, days), f"made {out}/identity.pem")


def issue_executor(
    node: Annotated[str, Argument(metavar="NODE", help="The node's name, as in the sets' `executors`.")],
    folder: Folder,
    out: Out,
    days: Days = _DAYS,
) -> int:
    """Issue, or renew, the certificate of a node's executor.

    Examples:

        gcompute cert executor n1 authority --out certs/n1
    """
    from ops.certificates.authority import Authority

    if not _NODE.fullmatch(node):
        raise BadParameter(f"{node!r} is not lower-case letters, digits and dashes, 63 at most")
    return _done(lambda: Authority(folder).issue_to_executor(node, out, days), f"made {out}/identity.pem")


def rotate(folder: Folder) -> int:
    """Replace the authority's key. Certificates of the earlier one stay valid until `retire`.

    Examples:

        gcompute cert rotate authority
    """
    from ops.certificates.authority import Authority

    return _done(
        Authority(folder).rotate,
        f"{folder}/ca.pem names the new authority and the earlier ones: copy it to every machine, then issue all "
        "certificates again",
    )


def retire(folder: Folder) -> int:
    """Take the earlier authorities out of ca.pem, once every certificate was issued again.

    Examples:

        gcompute cert retire authority
    """
    from ops.certificates.authority import Authority

    return _done(
        Authority(folder).retire, f"{folder}/ca.pem names one authority now: copy it to every machine"
    )


def _done(work: Callable[[], object], said: str) -> int:
    from ops.certificates.authority import CertificateError

    try:
        work()
    except CertificateError as error:
        report.say(f"cert: {error}")
        return exits.NO_INPUT
    except OSError as error:
        report.say(f"cert: {error.filename}: {error.strerror}")
        return exits.IO
    print(said)
    return 0


cert = Group(
    "cert",
    None,
    (
        Entry("ca", "ops.cli.cert:make_ca"),
        Entry("set", "ops.cli.cert:issue_set"),
        Entry("executor", "ops.cli.cert:issue_executor"),
        Entry("rotate", "ops.cli.cert:rotate"),
        Entry("retire", "ops.cli.cert:retire"),
    ),
    help=_HELP,
)
