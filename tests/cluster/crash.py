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
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ops.nomad.cluster import SERVERS
from tests.cluster.books import Books, faults_of, summary
from tests.cluster.clients import Clients
from tests.cluster.cluster import CLIENT_HOST, Cluster
from tests.cluster.faults import Fault, history, of_engine, of_nodes, of_nomad
from tests.cluster.load import ASYNC_ACCOUNT, SYNC_ACCOUNT, Plan
from tests.cluster.network import why_not
from tests.cluster.nomad import NomadCluster, why_no_nomad
from tests.cluster.parts import all_tasks, until
from tests.cluster.trouble import NomadTrouble, Trouble
from tests.cluster.witness import Witness

Say = Callable[[str], None]


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
    trouble = NomadTrouble(cluster) if isinstance(cluster, NomadCluster) else Trouble(cluster)
    file = cluster.folder / "told.json"
    plan = Plan(cluster.url, cluster.image, cluster.set_name, seed, str(file))
    clients = Clients(plan, partial(cluster.network.command, CLIENT_HOST))
    with Witness(cluster.set_name) as witness:
        try:
            play(trouble, faults, length_s, say)
            trouble.finish()
            say("all faults are healed; waiting for the accepted tasks' ends")
            cluster.set.until_ready()
            dead = [part.log.name for part in cluster.parts if not part.is_alive()]
            clients.end_load()
            calls, outcomes = clients.told()
        finally:
            clients.stop()
        cluster.until_quiet()
        kept = [task for name in (SYNC_ACCOUNT, ASYNC_ACCOUNT) for task in all_tasks(cluster.set.ask, name)]
        cluster.stop()
        until(lambda: not witness.running(), "no program outlives its executor")
    left = [f"{name}: it ended by itself" for name in dead] + cluster.left()
    # A node without any time to run is as good as frozen.
    frozen = trouble.frozen + [(began, ended + cluster.lease_s) for began, ended in witness.stalls]
    return Books(calls, outcomes, kept, witness.lives, left, frozen, trouble.unheard)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.crash", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long faults happen")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 20))
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument(
        "--nomad", action="store_true", help="slots are Nomad's; two nodes, and three servers"
    )
    parser.add_argument("--lease", type=float, default=2.0, help="link_lease_s of the set")
    options = parser.parse_args()
    if reason := why_not() or (options.nomad and why_no_nomad()):
        print(f"tests.cluster.crash: {reason}", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="gcx"))
    folder.chmod(0o755)
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    length_s, lease_s, seed = options.minutes * 60, options.lease, options.seed
    made: Cluster
    if options.nomad:
        made = NomadCluster(host, folder, lease_s=lease_s, seed=seed)
        groups = of_nomad(made.nodes, list(SERVERS))
    else:
        nodes = [f"n{number}" for number in range(1, options.nodes + 1)]
        made = Cluster(host, folder, nodes=nodes, lease_s=lease_s, seed=seed)
        groups = of_nodes(nodes)
    if made.own_engine is not None:
        groups.append(of_engine())
    faults = history(seed, groups, length_s, lease_s)
    print(f"seed {seed}, {options.minutes:g} minutes, {len(made.nodes)} nodes, lease {lease_s:g} s")
    with made as cluster:
        books = crash(cluster, faults, length_s, seed, lambda text: print(text, flush=True))
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
