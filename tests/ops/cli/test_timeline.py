"""`gcompute status --timeline`."""

from __future__ import annotations

import json
from typing import Any

from tests.ops.cli.fake_api import FakeApi
from tests.ops.cli.program import Program

TIMELINE: dict[str, Any] = {
    "id": "a-1",
    "set": "a",
    "state": "running",
    "waiting_for": None,
    "moments": {
        "queued": "2026-11-30T00:53:20.000000Z",
        "slot_wanted": "2026-11-30T00:53:20.000100Z",
        "ended": None,
    },
    "phases": [
        {"phase": "earlier_attempt", "from_us": 0, "to_us": 250_000, "why": "the guest is gone"},
        {"phase": "slot_wait", "from_us": 250_000, "to_us": 500_000, "why": None},
        {"phase": "begin", "from_us": 500_000, "to_us": 500_020, "why": None},
        {"phase": "run", "from_us": 500_020, "to_us": None, "why": None},
        {"phase": "of_a_later_release", "from_us": 0, "to_us": 1_000_000, "why": None},
    ],
}


def test_phases_are_bars_on_one_scale(api: FakeApi, gcompute: Program) -> None:
    api.on("GET", "/v1/tasks/a-1/timeline", lambda call: call.json(TIMELINE))
    done = gcompute("status", "a-1", "--timeline", env={"COLUMNS": "70"})
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    wide = 70 - 17 - 12
    assert all(len(line) <= 70 for line in lines)
    assert lines[0].startswith("earlier attempt")
    assert lines[0].endswith("250.0 ms")
    assert lines[0].count("█") in (wide // 4, wide // 4 + 1)
    assert lines[1].strip() == "the guest is gone"
    # It begins where the one before ends; even the shortest phase is seen.
    assert lines[2].index("█") in (lines[0].rindex("█"), lines[0].rindex("█") + 1)
    assert lines[3].count("█") == 1
    assert lines[4].startswith("runs")
    assert lines[4].endswith("goes on")
    assert lines[5].startswith("of_a_later_relea █")
    assert "ended            not reached" in lines


def test_as_json_it_is_the_answer(api: FakeApi, gcompute: Program) -> None:
    api.on("GET", "/v1/tasks/a-1/timeline", lambda call: call.json(TIMELINE))
    assert json.loads(gcompute("status", "--json", "--timeline", "a-1").stdout) == TIMELINE
