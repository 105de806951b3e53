"""Keep-alive that is learnt beside a fixed one, on a smaller day than the bench replays."""

from __future__ import annotations

from pathlib import Path

from ops.bench.keep_alive import FIXED_S, replay
from ops.simulator.synthetic_trace import write
from scheduler.policy.limits import KeepAlive


def test_what_is_learnt_saves_cold_starts_and_memory(tmp_path: Path) -> None:
    write(tmp_path, 40, 5)
    fixed = replay(tmp_path, FIXED_S, KeepAlive.FIXED)
    learnt = replay(tmp_path, FIXED_S / 2, KeepAlive.LEARNT)
    assert learnt.all.tasks == fixed.all.tasks
    assert learnt.slots_gib <= fixed.slots_gib
    assert learnt.all.cold_starts < 0.8 * fixed.all.cold_starts
