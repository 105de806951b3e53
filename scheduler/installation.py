"""The identity of an installation: stored in the set's state folder, and put on each of its slots.

Two installations on one engine may have sets of the same name. A set never touches slots with another identity.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger()

FILE: Final = "installation"
_ID_BYTES: Final = 6
_LINE: Final = re.compile(rf"([0-9a-f]{{{2 * _ID_BYTES}}}) inode ([0-9]{{1,20}})\n?")
_MOST_BYTES: Final = 64


def identify(folder: Path) -> str:
    """Return the identity of the set whose state is in the existing `folder`: 12 hexadecimal digits.

    The first call makes it. It is replaced if the folder is a copy: the file contains its own inode, which a renamed
    folder keeps and a copy does not. A copy with the same identity would remove the original's slots. An identity that
    cannot be written (a full disk) lasts for this run. Raises `OSError` if the file cannot be opened.
    """
    fd = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Two processes that start at the same time must get the same identity.
        fcntl.flock(fd, fcntl.LOCK_EX)
        inode = os.fstat(fd).st_ino
        text = os.pread(fd, _MOST_BYTES, 0).decode("ascii", "replace")
        found = _LINE.fullmatch(text)
        if found and int(found[2]) == inode:
            return found[1]
        made = secrets.token_hex(_ID_BYTES)
        if found:
            log.warning(
                "state folder is a copy or was restored: its slots get a new installation id, and those of the old id "
                "are left alone",
                folder=str(folder),
                old=found[1],
                new=made,
            )
        elif text:
            log.warning("installation file was damaged: made a new id", folder=str(folder), new=made)
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{made} inode {inode}\n".encode(), 0)
            os.fsync(fd)
        except OSError as error:
            log.warning(
                "installation id cannot be stored: a later run will not remove what this one leaves",
                folder=str(folder),
                reason=error.strerror,
            )
        return made
    finally:
        os.close(fd)


def known(folder: Path) -> str | None:
    """Read the identity in a state folder; None if no set has made one."""
    try:
        found = _LINE.fullmatch((folder / FILE).read_bytes()[:_MOST_BYTES].decode("ascii", "replace"))
    except OSError:
        return None
    return found[1] if found else None
