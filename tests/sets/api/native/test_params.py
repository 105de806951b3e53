"""The parameters of a run, without a set: what is read is what was meant."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import BadRequest
from scheduler.task import Isolation, Priority
from sets.api.call import RunCall
from sets.api.native.params import PARAMETERS, parse_run

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def test_defaults() -> None:
    assert parse_run(b"") == RunCall()


def test_all_at_once() -> None:
    query = urlencode(
        [
            *(("arg", "-l"), ("arg", ""), ("env", "A=1"), ("env", "B="), ("name", "n"), ("timeout_s", "1.5")),
            *(("queue_timeout_s", "0"), ("stream", "1"), ("cpu", "0.5"), ("memory_mib", "64")),
            *(
                ("isolation", "fresh"),
                ("cpu_feature", "avx2"),
                ("output", "/tmp/a b"),
                ("priority", "spare"),
            ),
            *(("retries", "20"), ("retry_exit_code", "75"), ("retry_exit_code", "1")),
        ]
    )
    assert parse_run(query.encode()) == RunCall(
        args=("-l", ""),
        env=("A=1", "B="),
        name="n",
        timeout_s=1.5,
        queue_timeout_s=0,
        stream=True,
        cpu_percent=50,
        memory_mib=64,
        isolation=Isolation.FRESH,
        cpu_features=("avx2",),
        outputs=("/tmp/a b",),
        priority=Priority.SPARE,
        retries=20,
        retry_exit_codes=(75, 1),
    )


def test_the_table_and_the_structure_name_the_same() -> None:
    fields = [parameter.field for parameter in PARAMETERS.values()]
    # A header says where the callback goes.
    assert (*fields, "callback_url") == RunCall.__struct_fields__


@given(st.lists(TEXT, max_size=8))
def test_arguments_arrive_as_they_were_sent(words: list[str]) -> None:
    for write in (quote, lambda word: quote(word, safe="/:,"), lambda word: urlencode({"": word})[1:]):
        query = "&".join(f"arg={write(word)}" for word in words)
        assert parse_run(query.encode()).args == tuple(words)


@given(st.integers(1, 102_400))
def test_cores_in_hundredths(cpu_percent: int) -> None:
    for text in (str(cpu_percent / 100), f"{cpu_percent / 100:.2f}", f"{cpu_percent / 100:.4f}"):
        assert parse_run(f"cpu={text}".encode()).cpu_percent == cpu_percent


@given(st.floats(0.001, 300, allow_subnormal=False))
def test_seconds_as_a_program_prints_them(seconds: float) -> None:
    assert parse_run(f"timeout_s={seconds:.20f}".encode()).timeout_s == pytest.approx(seconds)


@given(st.floats(0, 300))
def test_tiny_numbers_come_with_an_exponent(seconds: float) -> None:
    assert parse_run(f"queue_timeout_s={seconds}".encode()).queue_timeout_s == seconds


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused_by_name(query: bytes) -> None:
    with suppress(BadRequest):
        parse_run(query)
