"""The router's own log: each record is one line of JSON, whatever it tells of, gunicorn's records too.

Names, reasons and errors come from outside: line breaks, escape sequences and signs that turn the direction of text are
escaped, so that no text can pass for a line of the log, or order a terminal about.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, Final

from gunicorn.glogging import Logger  # type: ignore[import-untyped]

EVENT_CHARS: Final = 8_192
"""Longest message; what is longer is cut, and says so."""


class LineFormatter(logging.Formatter):
    """Fields as in a set's log: `event`, `level`, `timestamp` (UTC), beside `logger` and `pid`."""

    def format(self, record: logging.LogRecord) -> str:
        event = record.getMessage()
        if len(event) > EVENT_CHARS:
            event = f"{event[:EVENT_CHARS]}… ({len(event)} characters)"
        fields: dict[str, Any] = {
            "event": event,
            "level": record.levelname.lower(),
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
            "logger": record.name,
            "pid": record.process,
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        # JSON in ASCII escapes all that is dangerous but DEL.
        return json.dumps(fields).replace("\x7f", "\\u007f")


class GunicornLog(Logger):  # type: ignore[misc]
    """gunicorn's records in the same form."""

    def _set_handler(self, log: Any, output: Any, fmt: Any, stream: Any = None) -> None:
        super()._set_handler(log, output, LineFormatter(), stream)


def configure() -> None:
    """Let all loggers of this process write such lines to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
