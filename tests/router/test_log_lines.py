"""The router's log: whatever it tells of, each record is one line of JSON that orders no terminal about."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from gunicorn.config import Config  # type: ignore[import-untyped]

from router.log_lines import TEXT_CHARS, GunicornLog, one_line
from tests.conftest import ROOT

HOSTILE = 'x\r\n2026-01-01 ERROR forged\x1b[2J\x9b31m\x7f\0\u2028\u202e\u0085"\\\ud800'

PROGRAM = """
import logging, structlog
from router import log_lines
log_lines.configure()
hostile = %r
log = structlog.get_logger()
log.debug("not told")
log.info("configuration in force", changed_by=hostile, **{"k\\n": 1})
logging.getLogger("httpx").info("POST https://gate.test/?secret")
logging.getLogger("asyncio").warning("slow: %%s", hostile)
try:
    raise ValueError(hostile)
except ValueError:
    log.exception("failed")
    logging.getLogger("falcon").exception("failed, too")
"""

NOBODY_READS = """
import os, structlog
from router import log_lines
log_lines.configure()
reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, 2)
structlog.get_logger().error("nobody reads this")
os.write(1, b"goes on")
os._exit(0)
"""


def lines_of(program: str) -> list[dict[str, Any]]:
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True)
    text = done.stderr.decode("ascii")
    assert all(line.isprintable() for line in text.split("\n"))
    return [json.loads(line) for line in text.split("\n")[:-1]]


def test_own_and_foreign_records_are_one_line_each() -> None:
    changed, slow, failed, falcon = lines_of(PROGRAM % HOSTILE)
    assert (changed["event"], changed["level"]) == ("configuration in force", "info")
    assert (changed["changed_by"], changed["k\n"]) == (HOSTILE, 1)
    assert (slow["event"], slow["logger"]) == (f"slow: {HOSTILE}", "asyncio")
    assert "ValueError" in failed["exception"]
    assert "ValueError" in falcon["exception"]
    for line in (changed, slow, failed, falcon):
        assert line["timestamp"].endswith("Z")
        assert line["pid"] == changed["pid"] != os.getpid()


def test_a_log_that_nobody_reads_fails_no_request() -> None:
    done = subprocess.run([sys.executable, "-c", NOBODY_READS], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout == b"goes on"


def test_a_long_text_keeps_both_ends() -> None:
    cut = json.loads(one_line({"event": "a" + "x" * 1_000_000 + "z", "n": 1}))["event"]
    assert (cut[0], cut[-1]) == ("a", "z")
    assert cut.endswith("x" * 100 + "z")
    assert "… (1000002 characters) …" in cut
    assert len(one_line({"event": "\u2028" * 1_000_000})) < 7 * TEXT_CHARS


def test_gunicorns_lines_are_like_the_others() -> None:
    log = GunicornLog(Config())
    handler = log._get_gunicorn_handler(log.error_log)
    record = log.error_log.makeRecord("gunicorn.error", 30, "x", 1, "worker %s", (HOSTILE,), None)
    assert json.loads(handler.format(record))["event"] == f"worker {HOSTILE}"
