"""Judges of the runtime `gcompute-runc`, which gives each slot host ids of its own. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ops.doctor.finding import Finding, fail, ok, warn
from ops.doctor.machine import version_of

BLOCK_IDS: Final = 131_072
"""Host ids that each slot takes, as in sets/runtime/ids.h."""
_OLDEST: Final = (5, 19)
"""The first Linux that can mount an overlay's layers idmapped."""
_PAGE: Final = "sets/runtime/README.md"


@dataclass(frozen=True)
class OwnIds:
    """The runtime and its ids, as they are on the machine.

    `path`: the program that the engine's daemon.json names. `unusable`: why the engine cannot call it; else empty.
    `present`: it is the program of this build. `ids`: how many ids each of /etc/subuid and /etc/subgid gives its user.
    """

    path: str
    unusable: str
    present: bool
    kernel: str
    remapped: bool
    ids: Mapping[str, int]
    slots: int


def own_ids(facts: OwnIds) -> Iterator[Finding]:
    """Judge whether slots start under it, and how many at the same time."""
    right = True
    if facts.unusable:
        right = False
        yield fail(
            f"{facts.path}, which the engine calls for gcompute-runc, {facts.unusable}",
            f"install -m 755 sets/runtime/gcompute-runc {facts.path} ({_PAGE})",
        )
    elif not facts.present:
        yield warn(
            f"{facts.path} is not the gcompute-runc of this build",
            f"install -m 755 sets/runtime/gcompute-runc {facts.path}",
        )
    if version_of(facts.kernel) < _OLDEST:
        right = False
        yield fail(f"Linux {facts.kernel} cannot idmap the layers of an image", "install Linux 5.19 or later")
    if facts.remapped:
        right = False
        yield fail(
            "gcompute-runc does not work on an engine with userns-remap",
            'take "userns-remap" out of /etc/docker/daemon.json, or change the set\'s `runtime`',
        )
    for table, ids in facts.ids.items():
        option = f"--add-{'subuids' if 'uid' in table else 'subgids'}"
        mend = f"usermod {option} FIRST-LAST gcompute-runc, with {BLOCK_IDS} ids for each slot ({_PAGE})"
        if ids < BLOCK_IDS:
            right = False
            yield fail(
                f"{table} gives the user gcompute-runc fewer ids than one slot takes ({ids} of {BLOCK_IDS})",
                mend,
            )
        elif ids // BLOCK_IDS < facts.slots:
            yield warn(
                f"{table} gives the user gcompute-runc ids for fewer slots than there may be "
                f"({ids // BLOCK_IDS} of {facts.slots})",
                f"replace the range in {table} by a larger one, with {BLOCK_IDS} ids for each slot ({_PAGE})",
            )
    if right:
        yield ok("gcompute-runc is installed and has host ids for slots")
