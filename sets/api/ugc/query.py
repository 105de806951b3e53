"""The parameters of a UGC call: an empty value is an absent one, and unknown parameters are ignored. Pure."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote_to_bytes

from sets.api.ugc.codes import RetCode, UgcError

MAX_PARAMETERS: Final = 1_000
_ALIASES: Final = {"task_name": "TaskName", "Timeout": "TimeOut"}
"""Names that clients use beside the documented ones."""


class UgcQuery:
    """The decoded parameters. `pairs` has all of them in the order sent, as the signature needs them."""

    def __init__(self, query: bytes) -> None:
        """Raises `UgcError` for what is not UTF-8, and for too many parameters."""
        pieces = [piece for piece in query.split(b"&") if piece]
        if len(pieces) > MAX_PARAMETERS:
            raise UgcError(
                RetCode.PARAMETER_WRONG,
                f"{len(pieces)} parameters are too many; send {MAX_PARAMETERS} at most",
            )
        self.pairs = [_decoded(piece) for piece in pieces]
        self._values: dict[str, list[str]] = {}
        for name, value in self.pairs:
            if value:
                self._values.setdefault(_ALIASES.get(name, name), []).append(value)

    def get(self, name: str) -> str | None:
        """The value of a parameter; None where it is absent or empty. Raises `UgcError` where it has several."""
        values = self._values.get(name)
        if values is None:
            return None
        if len(values) > 1:
            raise UgcError(RetCode.PARAMETER_WRONG, f"{name}: given more than once; give it once")
        return values[0]

    def all(self, name: str) -> list[str]:
        """All values of a repeatable parameter."""
        return list(self._values.get(name, ()))

    def numbered(self, name: str, count: int) -> list[str]:
        """The values of `NAME.0`, `NAME.1` and so on, in the order of their numbers."""
        found = ((number, self.get(f"{name}.{number}")) for number in range(count))
        return [value for _, value in found if value is not None]

    def need(self, name: str, code: RetCode = RetCode.PARAMETER_MISSING) -> str:
        """The value of a required parameter. Raises `UgcError`."""
        value = self.get(name)
        if value is None:
            raise UgcError(code, f"{name}: is missing or empty")
        return value

    def whole_number(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number from `least` to `most`. Raises `UgcError`."""
        text = self.get(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) <= 18 and least <= int(text) <= most):
            raise UgcError(
                RetCode.PARAMETER_WRONG, f"{name}: {text[:40]!r} is not a whole number from {least} to {most}"
            )
        return int(text)

    def choice(self, name: str, choices: dict[str, str], default: str) -> str:
        """One of the `choices`, which maps what clients write in small letters to its meaning. Raises `UgcError`."""
        text = self.get(name)
        if text is None:
            return default
        meaning = choices.get(text.lower())
        if meaning is None:
            raise UgcError(
                RetCode.PARAMETER_WRONG, f"{name}: {text[:40]!r} is none of {', '.join(choices.values())}"
            )
        return meaning


def _decoded(piece: bytes) -> tuple[str, str]:
    raw_name, _, raw_value = piece.replace(b"+", b" ").partition(b"=")
    try:
        return unquote_to_bytes(raw_name).decode(), unquote_to_bytes(raw_value).decode()
    except UnicodeDecodeError:
        name = unquote_to_bytes(raw_name).decode("ascii", "replace")[:80]
        raise UgcError(RetCode.PARAMETER_WRONG, f"{name}: is not UTF-8") from None
