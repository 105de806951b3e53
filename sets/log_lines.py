"""A set's log: each record is one line of JSON, including those of gunicorn and other libraries.

Image names, reasons and errors come from outside. Line breaks, escape sequences and characters that change the
direction of text are escaped, so that no text can forge a line of the log or control a terminal.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from typing import Any, Final

import structlog
from gunicorn.glogging import Logger  # type: ignore[import-untyped]
from structlog.typing import Processor

TEXT_CHARS: Final = 8_192
"""Longest text of one field, in characters; longer text is cut and marked. An exception's trace is one field."""


def one_line(fields: Any, **options: Any) -> str:
    """Return the fields as JSON in ASCII, which escapes everything dangerous except DEL."""
    short = {name: _short(value) for name, value in fields.items()}
    return json.dumps(short, **options).replace("\x7f", "\\u007f")


def _short(value: Any) -> Any:
    if isinstance(value, str) and len(value) > TEXT_CHARS:
        return f"{value[: TEXT_CHARS // 2]}… ({len(value)} characters) …{value[-TEXT_CHARS // 2 :]}"
    return value


class StandardError:
    """Writes lines to standard error. A line that cannot be written is lost: it must not fail the task that logs."""

    def write_line(self, line: str) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{line}\n")

    debug = info = warning = error = critical = write_line


_BEFORE: Final[list[Processor]] = [
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]
_RENDER: Final[Processor] = structlog.processors.JSONRenderer(serializer=one_line)


def formatter() -> logging.Formatter:
    """Return the formatter for records of the standard library's loggers."""
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    before: list[Processor] = [structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder(), *_BEFORE]
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=before, processors=[remove, _RENDER])


class GunicornLog(Logger):  # type: ignore[misc]
    """Writes gunicorn's records in the same form."""

    def _set_handler(self, log: Any, output: Any, fmt: Any, stream: Any = None) -> None:
        super()._set_handler(log, output, formatter(), stream)


def configure(level: str) -> None:
    """Make all loggers of this process write such lines to standard error."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*_BEFORE, _RENDER],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_names: StandardError(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter())
    # Libraries log warnings and worse; their records of each request are left out.
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler])
