"""`python -m tests.cluster.crash --minutes 10 --seed 7`: a cluster under load while faults of a seeded history happen.

Afterwards the books are compared (`books.py`): what clients were told, what the set keeps, what ran on this machine.
Prints the faults, counts, and each broken promise. If there is one, it names the folder with the parts' logs, and exits
with 1. Needs root and an engine at DOCKER_HOST.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from docker.errors import APIError

from tests.cluster.books import Books, faults_of, summary
from tests.cluster.clients import Clients
from tests.cluster.clock import boot_s
from tests.cluster.cluster import CLIENT_HOST, Cluster
from tests.cluster.faults import ROUTER, SET, Fault, Kind, history
from tests.cluster.load import ASYNC_ACCOUNT, SYNC_ACCOUNT, Plan
from tests.cluster.network import why_not
from tests.cluster.parts import Part, until
from tests.cluster.switch import CUT, FAIR, Weather
from tests.cluster.witness import Witness

BAD_WIRE = Weather(delay_s=0.01, jitter_s=0.05, loss=0.05)
PAGE = 200

Say = Callable[[str], None]


class Trouble:
    """Makes faults happen to a cluster, and heals them."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._network = cluster.network
        self._paused: dict[str, list[str]] = {}
        self.frozen: list[tuple[float, float]] = []
        """Times in which frozen programs could not kill what they run."""
        self._frozen_since: dict[str, float] = {}
        self.unheard: list[tuple[float, float]] = []
        """Times in which no router listened: a client may be left without an answer."""
        self._unheard_since = 0.0

    def begin(self, fault: Fault) -> None:
        part, target = self._part(fault), fault.target
        match fault.kind:
            case Kind.CUT:
                self._network.cut(target)
            case Kind.CUT_OUT:
                self._one_way(target, CUT, outwards=True)
            case Kind.CUT_IN:
                self._one_way(target, CUT, outwards=False)
            case Kind.BAD_WIRE:
                self._network.change_all(target, BAD_WIRE)
            case Kind.FREEZE_PROGRAM:
                self._freeze(part, target)
            case Kind.FREEZE_NODE:
                self._freeze(part, target)
                self._paused[target] = [each for each in self._cluster.slots(target) if self._pause(each)]
            case Kind.KILL:
                self._note_unheard(target)
                part.kill()
            case Kind.RESTART:
                self._note_unheard(target)
                part.ask_to_stop()
            case Kind.KILL_SLOT:
                if slots := self._cluster.slots(target):
                    # It may be gone by now.
                    with suppress(APIError):
                        self._cluster.engine.api.kill(random.Random(fault.dice).choice(slots))

    def end(self, fault: Fault) -> None:
        part, target = self._part(fault), fault.target
        match fault.kind:
            case Kind.CUT | Kind.BAD_WIRE:
                self._network.heal(target)
            case Kind.CUT_OUT | Kind.CUT_IN:
                self._one_way(target, FAIR, outwards=fault.kind is Kind.CUT_OUT)
            case Kind.FREEZE_PROGRAM | Kind.FREEZE_NODE:
                part.signal(signal.SIGCONT)
                for each in self._paused.pop(target, ()):
                    with suppress(APIError):
                        self._cluster.engine.api.unpause(each)
                self.frozen.append((self._frozen_since.pop(target), boot_s() + self._cluster.lease_s))
            case Kind.KILL | Kind.RESTART:
                part.stop()
                part.start()
                if target == ROUTER:
                    part.until_ready()
                    self.unheard.append((self._unheard_since, boot_s()))

    def _part(self, fault: Fault) -> Part:
        cluster = self._cluster
        return {SET: cluster.set, ROUTER: cluster.router, **cluster.executors}[fault.target]

    def _one_way(self, target: str, weather: Weather, *, outwards: bool) -> None:
        for other in self._network.hosts:
            if other != target:
                ends = (target, other) if outwards else (other, target)
                self._network.change(*ends, weather)

    def _note_unheard(self, target: str) -> None:
        if target == ROUTER:
            self._unheard_since = boot_s()

    def _freeze(self, part: Part, target: str) -> None:
        self._frozen_since[target] = boot_s()
        part.signal(signal.SIGSTOP)

    def _pause(self, slot: str) -> bool:
        with suppress(APIError):
            self._cluster.engine.api.pause(slot)
            return True
        return False


def play(trouble: Trouble, faults: list[Fault], length_s: float, say: Say) -> None:
    """Begin and end each fault in time; all are over when this returns, however it does."""
    began_at = time.monotonic()
    open_faults: list[Fault] = []

    def pass_time(until_s: float) -> None:
        time.sleep(max(0.0, began_at + until_s - time.monotonic()))

    def end_those_due(now_s: float) -> None:
        for fault in sorted(open_faults, key=lambda each: each.at_s + each.lasts_s):
            if fault.at_s + fault.lasts_s <= now_s:
                pass_time(fault.at_s + fault.lasts_s)
                open_faults.remove(fault)
                trouble.end(fault)

    try:
        for fault in faults:
            end_those_due(fault.at_s)
            pass_time(fault.at_s)
            say(str(fault))
            open_faults.append(fault)
            trouble.begin(fault)
        end_those_due(length_s)
        pass_time(length_s)
    finally:
        for fault in open_faults:
            trouble.end(fault)


def crash(cluster: Cluster, faults: list[Fault], length_s: float, seed: int, say: Say) -> Books:
    """Run the load while the faults happen; heal, wait for the ends, stop all, and return the books."""
    trouble = Trouble(cluster)
    file = cluster.folder / "told.json"
    plan = Plan(cluster.url, cluster.image, cluster.set_name, seed, str(file))
    clients = Clients(cluster.network, CLIENT_HOST, plan)
    with Witness(cluster.set_name) as witness:
        try:
            play(trouble, faults, length_s, say)
            say("all faults are healed; waiting for the accepted tasks' ends")
            cluster.set.until_ready()
            dead = [part.log.name for part in cluster.parts if not part.is_alive()]
            clients.end_load()
            calls, outcomes = clients.told()
        finally:
            clients.stop()
        cluster.until_quiet()
        kept = [task for name in (SYNC_ACCOUNT, ASYNC_ACCOUNT) for task in all_tasks(cluster.set, name)]
        cluster.stop()
        until(lambda: not witness.running(), "no program outlives its executor")
    left = [f"{name}: it ended by itself" for name in dead] + cluster.left()
    # A node without any time to run is as good as frozen.
    frozen = trouble.frozen + [(began, ended + cluster.lease_s) for began, ended in witness.stalls]
    return Books(calls, outcomes, kept, witness.lives, left, frozen, trouble.unheard)


def all_tasks(part: Part, account: str) -> list[dict[str, Any]]:
    """All tasks of an account that the set keeps."""
    found: list[dict[str, Any]] = []
    before = ""
    while True:
        answer = part.ask(f"/v1/tasks?limit={PAGE}{before}", account)
        assert answer is not None
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["tasks"]
        if page["next"] is None:
            return found
        before = f"&before={page['next']}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.crash", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long faults happen")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 20))
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--lease", type=float, default=2.0, help="link_lease_s of the set")
    options = parser.parse_args()
    if reason := why_not():
        print(f"tests.cluster.crash: {reason}", file=sys.stderr)
        return 2
    print(
        f"seed {options.seed}, {options.minutes:g} minutes, {options.nodes} nodes, lease {options.lease:g} s"
    )
    folder = Path(tempfile.mkdtemp(prefix="gcx"))
    folder.chmod(0o755)
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    length_s = options.minutes * 60
    with Cluster(host, folder, nodes=options.nodes, lease_s=options.lease, seed=options.seed) as cluster:
        faults = history(options.seed, cluster.nodes, length_s, options.lease)
        books = crash(cluster, faults, length_s, options.seed, lambda text: print(text, flush=True))
    print(f"faults: {len(faults)}")
    for name, count in summary(books).items():
        print(f"{name}: {count}")
    broken = faults_of(books)
    print("\n".join(broken) or "no promise was broken")
    if broken:
        print(f"logs: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
