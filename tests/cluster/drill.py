"""`python -m tests.cluster.drill`: a data centre is cut off under load and heals; reports what clients met.

Two data centres, a set and a router in each, HAProxy before both (`centres.py`). The links of one are dropped, not
reset: nobody is told. Reports the failures by kind, the longest wait, the time until all requests went well again, and
what became of the asynchronous tasks that the cut one had accepted. Exits with 1 if one of those was lost.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.cluster.books import Call, Outcome
from tests.cluster.centres import CENTRES, CLIENT_HOST, Centres
from tests.cluster.clients import Clients
from tests.cluster.clock import boot_s
from tests.cluster.load import Plan
from tests.cluster.network import why_not

SLOW_S = 3.0
"""An answer that took longer than any task and its queue under the drill's light load."""
LOST = "dc2"


@dataclass(frozen=True)
class Times:
    """When what happened, by the clock of the rig."""

    cut_s: float
    healed_s: float


@dataclass
class Phase:
    """Requests of a phase: how many there were, the trouble that they met by kind, the longest time of one.

    `begun_s`, `ended_s`: seconds from the phase's start until the last request that met trouble began, and ended.
    """

    asked: int
    trouble: dict[str, int]
    longest_s: float
    begun_s: float
    ended_s: float


@dataclass
class Report:
    """`accepted`, `ended`: asynchronous tasks by data centre, and by state in the end; `lost`: those that did not
    succeed."""

    phases: dict[str, Phase] = field(default_factory=dict)
    accepted: dict[str, int] = field(default_factory=dict)
    ended: dict[str, dict[str, int]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)


def met(call: Call) -> str:
    """The trouble that a client met; empty: none."""
    took_s = call.ended_at - call.sent_at
    if call.flaw:
        return f"wrong output: {call.flaw}"
    if call.status == 0 or call.broken:
        return "connection lost" if call.status == 0 else "answer broken off"
    if call.status >= 400:
        ran = {True: "may have run", False: "did not run", None: "does not say if it ran"}[call.executed]
        return f"{call.status} {call.problem}, {ran}"
    return f"slower than {SLOW_S:g} s" if took_s > SLOW_S else ""


def report(calls: list[Call], outcomes: list[Outcome], times: Times, centre_of: dict[str, str]) -> Report:
    """Compare. Pure. `centre_of`: the data centre of each accepted task."""
    made = Report()
    starts = {"before": 0.0, "cut": times.cut_s, "healed": times.healed_s}
    of: dict[str, list[Call]] = {phase: [] for phase in starts}
    for call in calls:
        of[_phase(call, times)].append(call)
    for phase, began in starts.items():
        troubles = [call for call in of[phase] if met(call)]
        made.phases[phase] = Phase(
            len(of[phase]),
            dict(Counter(f"{call.kind}: {met(call)}" for call in troubles)),
            max((call.ended_at - call.sent_at for call in of[phase]), default=0.0),
            max((call.sent_at - began for call in troubles), default=0.0),
            max((call.ended_at - began for call in troubles), default=0.0),
        )
    for centre in CENTRES:
        own_tasks = [each for each in outcomes if centre_of[each.task] == centre]
        made.accepted[centre] = len(own_tasks)
        made.ended[centre] = dict(Counter(str(each.facts.get("state", "unknown")) for each in own_tasks))
        made.lost += [each.task for each in own_tasks if each.facts.get("state") != "succeeded" or each.flaw]
    return made


def _phase(call: Call, times: Times) -> str:
    """The phase that decided how a call ended: requests under way when the links are cut belong to the cut."""
    if call.sent_at >= times.healed_s:
        return "healed"
    return "cut" if call.ended_at >= times.cut_s else "before"


def text(found: Report) -> str:
    """The report for people."""
    lines = []
    for name, phase in found.phases.items():
        lines.append(f"{name}: {phase.asked} requests, the longest took {phase.longest_s:.1f} s")
        lines += [f"    {number} {kind}" for kind, number in sorted(phase.trouble.items())]
        if phase.trouble and name != "before":
            begun_s = max(0.0, phase.begun_s)
            lines.append(
                f"    the last of these began after {begun_s:.1f} s and ended after {phase.ended_s:.1f} s"
            )
    for centre, count in found.accepted.items():
        ends = ", ".join(f"{number} {state}" for state, number in found.ended[centre].items())
        lines.append(f"{centre} accepted {count} asynchronous tasks: {ends}")
    lines.append("lost: " + (", ".join(found.lost) or "none"))
    return "\n".join(lines)


def drill(centres: Centres, before_s: float, cut_s: float, after_s: float, seed: int) -> Report:
    """Run the load, cut one data centre off, heal it, follow the accepted tasks."""
    plan = Plan(
        *(centres.url, centres.image, "drill", seed, str(centres.folder / "told.json"), str(centres.ca)),
        kept=True,
        sync_clients=8,
        async_clients=2,
        pause_s=0.4,
        burn_ms=5,
        rests_ms=(0, 50, 200),
    )
    clients = Clients(plan, partial(centres.network.command, CLIENT_HOST))
    try:
        time.sleep(before_s)
        cut_at = boot_s()
        centres.network.cut(LOST)
        time.sleep(cut_s)
        healed_at = boot_s()
        centres.network.heal(LOST)
        time.sleep(after_s)
        times = Times(cut_at, healed_at)
        clients.end_load()
        calls, outcomes = clients.told()
    finally:
        clients.stop()
    return report(calls, outcomes, times, {each.task: centres.centre_of(each.task) for each in outcomes})


def main() -> int:
    parser = argparse.ArgumentParser(prog="make drill", description=__doc__)
    parser.add_argument("--before", type=float, default=25.0, help="seconds of load before the cut")
    parser.add_argument("--cut", type=float, default=60.0, help="seconds of the cut")
    parser.add_argument("--after", type=float, default=40.0, help="seconds of load after the cut")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if reason := why_not():
        print(f"make drill: {reason}", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="gcy"))
    folder.chmod(0o755)
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    with Centres(host, folder, options.seed) as centres:
        found = drill(centres, options.before, options.cut, options.after, options.seed)
    print(text(found))
    print(f"logs: {folder}")
    return 1 if found.lost else 0


if __name__ == "__main__":
    raise SystemExit(main())
