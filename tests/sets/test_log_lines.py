"""A set's log: whatever it tells of, each record is one line of JSON that orders no terminal about."""

from __future__ import annotations

import json
import subprocess
import sys

from gunicorn.config import Config  # type: ignore[import-untyped]

from sets.log_lines import TEXT_CHARS, GunicornLog, one_line
from tests.conftest import ROOT
from tests.router.test_log_lines import HOSTILE, NOBODY_READS, lines_of

PROGRAM = """
import logging, structlog
from sets import log_lines
log_lines.configure("info")
hostile = %r
structlog.get_logger().warning("image", name=hostile, **{"k\\n": 1})
logging.getLogger("docker").warning("engine said %%s", hostile)
logging.getLogger("urllib3").info("not told")
try:
    raise ValueError(hostile)
except ValueError:
    structlog.get_logger().exception("failed")
    logging.getLogger("falcon").exception("failed, too")
"""


def test_own_and_foreign_records_are_one_line_each() -> None:
    image, engine, failed, falcon = lines_of(PROGRAM % HOSTILE)
    assert (image["name"], image["level"]) == (HOSTILE, "warning")
    assert (engine["event"], engine["logger"]) == (f"engine said {HOSTILE}", "docker")
    assert "ValueError" in failed["exception"]
    assert "ValueError" in falcon["exception"]
    assert all(line["timestamp"].endswith("Z") for line in (image, engine, failed, falcon))


def test_a_log_that_nobody_reads_fails_no_task() -> None:
    program = NOBODY_READS.replace("router", "sets").replace("configure()", 'configure("info")')
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout == b"goes on"


def test_a_long_text_keeps_both_ends() -> None:
    cut = json.loads(one_line({"event": "a" + "x" * 1_000_000 + "z", "n": 1}))["event"]
    assert (cut[0], cut[-1]) == ("a", "z")
    assert len(cut) < TEXT_CHARS + 50


def test_gunicorns_lines_are_like_the_others() -> None:
    log = GunicornLog(Config())
    handler = log._get_gunicorn_handler(log.error_log)
    record = log.error_log.makeRecord("gunicorn.error", 30, "x", 1, "worker %s", (HOSTILE,), None)
    assert json.loads(handler.format(record))["event"] == f"worker {HOSTILE}"
