"""Records an actor, and tries what a loss of power may leave after its calls."""

from __future__ import annotations

import copy
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT
from tests.scheduler.store.writes.checker import Claim, check, hear, left_open
from tests.scheduler.store.writes.disk import Disk, Fate
from tests.scheduler.store.writes.log import Call, What, read

HERE = Path(__file__).parent
FAILS_EVERY = 5
"""One of so many syncs of the third actor fails."""
MID_WRITES_EVERY = 12
"""One of so many writes that another write follows is tried."""


@dataclass(frozen=True)
class Fault:
    """Something that is wrong after the first `count` calls of a log; `kept`: what the loss of power left."""

    count: int
    fate: Fate
    text: str
    kept: Path | None = None

    def __str__(self) -> str:
        where = f" ({self.kept})" if self.kept else ""
        return f"after call {self.count}, what was not synced was {self.fate.value}: {self.text}{where}"


def recorder(folder: Path) -> Path:
    """Compile `recorder.c` into a folder; return the library to preload."""
    library = folder / "recorder.so"
    options = ("-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror")
    subprocess.run(("cc", *options, "-o", library, HERE / "recorder.c", "-ldl"), check=True)
    return library


def record(folder: Path, seed: str, tasks: int) -> list[Call]:
    """The calls of three actors in a row, in `folder`, which is empty.

    The first one dies in place of a sync; of the third one's syncs some fail.
    """
    library = recorder(folder)
    state, log = folder / "state", folder / "log"
    state.mkdir()
    env = {
        "PATH": "/usr/bin:/bin",
        "RECORDER_FOLDER": str(state),
        "RECORDER_LOG": str(log),
        "LD_PRELOAD": str(library),
    }
    dies = random.Random(seed).randint(10, tasks * 2)
    _act(state, f"{seed}.0", tasks, {}, env | {"RECORDER_DIES_IN_SYNC": str(dies)})
    _act(state, f"{seed}.1", tasks, left_open(read(log)), env)
    _act(state, f"{seed}.2", tasks, {}, env | {"RECORDER_FAILS_SYNC_EVERY": str(FAILS_EVERY)})
    return read(log)


def _act(state: Path, seed: str, tasks: int, again: dict[str, int], env: dict[str, str]) -> None:
    words = ("-m", "tests.scheduler.store.writes.actor", str(state), seed, str(tasks), json.dumps(again))
    done = subprocess.run((sys.executable, *words), cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the actor ended with {done.returncode}:\n{done.stderr}")


def worth_trying(calls: list[Call], seed: str) -> dict[int, list[Fate]]:
    """The fates to try after each number of calls: a loss of power leaves the same after the calls that are left out.

    Only a sync changes what is sure, and only a line that the program said changes what is promised. So what was lost
    is tried after those two; and nothing is kept by a sync that was not kept before it. Of writes in a row the last one
    is tried, and a sample of the others: there the rest of the row may be missing or torn after the last one, too.
    """
    dice = random.Random(f"{seed} sample")
    tries = {}
    for count, call in enumerate(calls, 1):
        in_a_row = call.what is What.WRITE and count < len(calls) and calls[count].what is What.WRITE
        if in_a_row and dice.randrange(MID_WRITES_EVERY):
            continue
        left_out = (
            {Fate.KEPT} if call.what is What.SYNC else {Fate.LOST} if call.what is not What.SAY else set()
        )
        tries[count] = [fate for fate in Fate if fate not in left_out]
    return tries


def sweep(
    calls: list[Call], tries: Mapping[int, Collection[Fate]], seed: str, keep: Path | None = None
) -> Iterator[Fault]:
    """Try fates after numbers of calls. `keep` gets the folders in which a thing is wrong."""
    disk = Disk()
    said: dict[str, Claim] = {}
    for count, call in enumerate(calls, 1):
        disk.take(call)
        if call.what is What.SAY:
            hear(said, call.data)
        for fate in tries.get(count, ()):
            dice = random.Random(f"{seed} {count} {fate}")
            with tempfile.TemporaryDirectory(prefix="gcw") as name:
                folder = Path(name)
                disk.left(folder, fate, dice)
                before = keep and keep / f"call-{count}-{fate.name.lower()}"
                if before is not None:
                    shutil.rmtree(before, ignore_errors=True)
                    shutil.copytree(folder, before)
                wrong = check(folder, copy.deepcopy(said))
                if before is not None and not wrong:
                    shutil.rmtree(before)
                yield from (Fault(count, fate, text, before) for text in wrong)
