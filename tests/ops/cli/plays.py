"""Answers that the tests of `gcompute run` let the fake API give."""

from __future__ import annotations

from typing import Any

from tests.ops.cli.fake_api import Call


def echo(call: Call) -> None:
    call.output(call.read())


def echo_as_it_comes(call: Call) -> None:
    call.head(Transfer_Encoding="chunked", X_Task_Id="a-1", X_Set="a")
    for piece in call.pieces():
        call.chunk(piece)
    call.end()


def drain_and(call: Call, status: int, name: str, detail: str, **more: Any) -> None:
    call.read()
    call.problem(status, name, detail, **more)
