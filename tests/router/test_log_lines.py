"""The router's log: whatever it tells of, each record is one line of JSON that orders no terminal about."""

from __future__ import annotations

import json
import logging

from gunicorn.config import Config  # type: ignore[import-untyped]

from router.log_lines import EVENT_CHARS, GunicornLog, LineFormatter

HOSTILE = 'x\r\n2026-01-01 ERROR forged\x1b[2J\x9b31m\x7f\0\u2028\u202e\u0085"\\\ud800'


def line(message: str, *arguments: object, error: BaseException | None = None) -> str:
    info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord("router", logging.WARNING, __file__, 1, message, arguments, info)
    return LineFormatter().format(record)


def test_a_hostile_text_is_escaped_and_can_be_read_back() -> None:
    text = line("changed by %s: %s", "ops", HOSTILE)
    assert text.isascii()
    assert text.isprintable()
    found = json.loads(text)
    assert found["event"] == f"changed by ops: {HOSTILE}"
    assert (found["level"], found["logger"]) == ("warning", "router")
    assert found["timestamp"].endswith("Z")


def test_an_errors_trace_is_one_field() -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        text = line("failed", error=error)
    assert text.isprintable()
    assert "ValueError" in json.loads(text)["exception"]


def test_a_long_text_is_cut() -> None:
    assert json.loads(line("x" * 1_000_000))["event"].endswith("… (1000000 characters)")
    assert len(line("\u2028" * 1_000_000)) < 7 * EVENT_CHARS


def test_gunicorns_lines_are_like_the_others() -> None:

    log = GunicornLog(Config())
    assert isinstance(log._get_gunicorn_handler(log.error_log).formatter, LineFormatter)
