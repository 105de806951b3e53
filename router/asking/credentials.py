"""The router's own credential at sets: a token with the scope `operator`, in a file that the operators' file names.

A set with authentication shows its metrics, and its load in `/readyz`, to nobody else. The file is read at each use, so
a changed token counts at once; the token is in no log, URL, history or status.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from typing import Final, Protocol

import structlog

from router.errors import RouterError

MAX_FILE_BYTES: Final = 4096
_TOKEN: Final = re.compile(rb"gc_[a-z0-9-]{1,63}_[!-~]{16,512}")
log = structlog.get_logger()


class BadCredential(RouterError):
    """The file with the router's token for a set cannot be used."""


class Entry(Protocol):
    """The part of `table.SetEntry` that is needed here."""

    @property
    def name(self) -> str: ...
    @property
    def operator_token_file(self) -> str | None: ...


def read_credential(path: str) -> bytes:
    """The token in a file, without the space around it. Raises `BadCredential`, which never tells the token."""
    try:
        # A pipe must not hold the router up.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BadCredential(f"operator_token_file {path} is no regular file")
            token = os.read(descriptor, MAX_FILE_BYTES).strip()
        finally:
            os.close(descriptor)
    except OSError as error:
        raise BadCredential(f"operator_token_file {path} cannot be read: {error.strerror}") from error
    if not _TOKEN.fullmatch(token):
        raise BadCredential(
            f"operator_token_file {path} does not hold one token, gc_NAME_SECRET; "
            "make one with `gcompute token operator NAME`"
        )
    return token


def credential_doubts(entries: Iterable[Entry]) -> tuple[str, ...]:
    """A sentence for each file that could not be used on this machine."""
    doubts = []
    for path in sorted({entry.operator_token_file for entry in entries if entry.operator_token_file}):
        try:
            read_credential(path)
        except BadCredential as error:
            doubts.append(str(error))
    return tuple(doubts)


class Credentials:
    """Gives the header that a request of the router's own carries to a set; logs a trouble once, until it changes."""

    def __init__(self) -> None:
        self._troubles: dict[str, str] = {}

    def lines(self, entry: Entry) -> tuple[bytes, ...]:
        """Header lines, each with CR LF; () where the set needs no token, or its file cannot be used."""
        path = entry.operator_token_file
        if path is None:
            return ()
        try:
            token = read_credential(path)
        except BadCredential as error:
            if self._troubles.get(entry.name) != str(error):
                self._troubles[entry.name] = str(error)
                log.warning("set is asked without a token", set=entry.name, reason=str(error))
            return ()
        self._troubles.pop(entry.name, None)
        return (b"Authorization: Bearer %b\r\n" % token,)
