"""`Cmd` is split as a shell splits words, and nothing in it is expanded."""

from __future__ import annotations

import pytest

from sets.api.ugc.codes import RetCode, UgcError
from sets.api.ugc.command_line import words_of


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", ()),
        ("thumbnail 200x200", ("thumbnail", "200x200")),
        ("  a\tb\nc ", ("a", "b", "c")),
        ("""say "two words" 'and $HOME' a\\ b""", ("say", "two words", "and $HOME", "a b")),
        ("*.jpg > out; rm -rf / | `x`", ("*.jpg", ">", "out;", "rm", "-rf", "/", "|", "`x`")),
        ("'' #no comment", ("", "#no", "comment")),
        ("\u56fe", ("\u56fe",)),
    ],
)
def test_words(command: str, words: tuple[str, ...]) -> None:
    assert words_of(command) == words


@pytest.mark.parametrize("command", ["'open", '"open', "end\\", "a\0b"])
def test_what_is_no_command_line(command: str) -> None:
    with pytest.raises(UgcError, match=r"^Cmd: ") as caught:
        words_of(command)
    assert caught.value.code is RetCode.PARAMETER_WRONG
