"""`Cmd`, the command line after the image's entrypoint, as words. Pure."""

from __future__ import annotations

import shlex

from sets.api.ugc.codes import RetCode, UgcError


def words_of(command: str) -> tuple[str, ...]:
    """Split as a shell does: quotes and backslashes count, nothing is expanded. Raises `UgcError`."""
    if "\0" in command:
        raise UgcError(RetCode.PARAMETER_WRONG, "Cmd: holds a NUL character, which no argument can have")
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise UgcError(
            RetCode.PARAMETER_WRONG, f"Cmd: {str(error).lower()}; quote it as for a shell"
        ) from None
