"""The words of errors, for logs and answers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from router.errors import RouterError, reason_of
from router.wire.addresses import Addresses
from router.wire.fetch import FetchError, fetch
from tests.ports import free_port


def test_a_failed_system_call_is_told_in_the_systems_words(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "none").read_bytes()
    assert reason_of(caught.value) == f"{tmp_path}/none: No such file or directory"
    assert reason_of(ConnectionResetError(104, "Connection reset by peer")) == "Connection reset by peer"


def test_no_reason_is_empty() -> None:
    assert reason_of(RouterError("the table is wrong")) == "the table is wrong"
    assert reason_of(TimeoutError()) == "TimeoutError"


async def test_a_set_that_does_not_listen_is_told_without_numbers() -> None:
    with pytest.raises(FetchError, match=r"^Connection refused$"):
        await fetch(
            Addresses(asyncio.get_running_loop(), "127.0.0.1", free_port()),
            b"/readyz",
            (),
            timeout_s=60,
            max_bytes=1000,
        )
