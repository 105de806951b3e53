"""A spool of JSON lines: each line is one input, with its arguments, variables and standard input."""

from __future__ import annotations

from typing import BinaryIO, Final

import msgspec

from scheduler.batches.item import Gap, Item, plain_name
from scheduler.errors import BadRequest
from scheduler.execution import TOKEN_VARIABLE

LINE_BYTES: Final = 256 * 1024
"""Longest line, in bytes. Larger inputs are sent as files of a tar archive."""
ARGS: Final = 8192
"""Most arguments of one line, as of one request."""
VARIABLES: Final = 1024
"""Most variables of one line, as of one request."""


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line. `args` follow those of the request; `env` is added to its variables."""

    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    name: str | None = None
    input: str | None = None
    input_base64: bytes | None = None


_decode: Final = msgspec.json.Decoder(Line).decode


class LinesReader:
    """Reads JSON lines (`scheduler.batches.item.Reader`). An empty line is a gap.

    An input without a name is named after its number, in six digits.
    """

    def read(self, spool: BinaryIO, item: int, number: int) -> Item | Gap | None:
        spool.seek(item)
        text = spool.readline(LINE_BYTES + 1)
        if not text:
            return None
        if len(text) > LINE_BYTES and not text.endswith(b"\n"):
            raise BadRequest(
                f"input {number} (byte {item}): its line is longer than {LINE_BYTES} bytes; send large inputs as "
                "files of a tar archive, with `Content-Type: application/x-tar`",
                field="body",
            )
        ends = item + len(text)
        return _item(text, item, ends, number) if text.strip() else Gap(ends)


def _item(text: bytes, begins: int, ends: int, number: int) -> Item:
    where = f"input {number} (byte {begins})"
    try:
        line = _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest(
            f'{where}: {error}; a line is such as {{"args": ["-l", "eng"], "name": "page-1", "input": "text"}}',
            field="body",
        ) from None
    if line.input is not None and line.input_base64 is not None:
        raise BadRequest(f"{where}: it has both `input` and `input_base64`; give one", field="body")
    _check_words(line, where)
    try:
        data = line.input_base64 if line.input is None else line.input.encode()
    except UnicodeEncodeError:
        raise BadRequest(f"{where}: `input` is not Unicode; send `input_base64`", field="body") from None
    name = f"{number:06d}" if line.name is None else plain_name(line.name, where)
    env = tuple([f"{variable}={value}" for variable, value in line.env.items()])
    return Item(begins, ends, name, len(data or b""), data or b"", args=line.args, env=env)


def _check_words(line: Line, where: str) -> None:
    if len(line.args) > ARGS or len(line.env) > VARIABLES:
        raise BadRequest(f"{where}: at most {ARGS} arguments and {VARIABLES} variables", field="body")
    for variable in line.env:
        if not variable or "=" in variable:
            raise BadRequest(f"{where}: {variable[:80]!r} is not the name of a variable", field="body")
        if variable == TOKEN_VARIABLE:
            raise BadRequest(
                f"{where}: {TOKEN_VARIABLE} is the platform's own name; choose another", field="body"
            )
    # Joined first: a line may have thousands of words.
    words = "".join((*line.args, *line.env, *line.env.values()))
    if "\0" in words:
        raise BadRequest(f"{where}: a NUL character cannot be passed to a program", field="body")
    if not words.isascii():
        try:
            words.encode()
        except UnicodeEncodeError:
            raise BadRequest(f"{where}: an argument or variable is not Unicode", field="body") from None
