"""The router's own credential at sets: read from a file at each use, told to nobody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from router.asking.credentials import BadCredential, Credentials, credential_doubts, read_credential
from router.routing.table import SetEntry

TOKEN = "gc_router_0123456789abcdef0123456789abcdef"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    return path


def entry(file: Path | None) -> SetEntry:
    return SetEntry("a", "127.0.0.1", 1, operator_token_file=None if file is None else str(file))


def test_the_header_follows_the_file(file: Path) -> None:
    credentials = Credentials()
    assert credentials.lines(entry(None)) == ()
    assert credentials.lines(entry(file)) == (f"Authorization: Bearer {TOKEN}\r\n".encode(),)
    file.write_text(TOKEN.replace("0", "f"))
    assert credentials.lines(entry(file)) == (
        f"Authorization: Bearer {TOKEN.replace('0', 'f')}\r\n".encode(),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a-secret",
        "gc_router_short",
        f"{TOKEN} {TOKEN}",
        f"{TOKEN}\r\nX-Evil: 1",
        f"{TOKEN}\u00e9",
        "x" * 10_000,
    ],
)
def test_what_is_no_token_is_no_header_and_is_not_shown(file: Path, text: str) -> None:
    file.write_text(text)
    credentials = Credentials()
    with capture_logs() as lines:
        assert [credentials.lines(entry(file)) for _ in range(3)] == [()] * 3
    assert [line["event"] for line in lines] == ["set is asked without a token"], "it is said once"
    assert str(file) in lines[0]["reason"]
    assert not text or text not in str(lines)


def test_a_pipe_or_a_missing_file_holds_nobody_up(tmp_path: Path) -> None:
    pipe, missing = tmp_path / "pipe", tmp_path / "missing"
    os.mkfifo(pipe)
    for path in (pipe, missing, tmp_path):
        with pytest.raises(BadCredential, match=path.name):
            read_credential(str(path))
    doubts = credential_doubts([entry(pipe), entry(missing), entry(missing), entry(None)])
    assert len(doubts) == 2
