"""A disk that promises only what was synced: from a log of calls, the folders that a loss of power may leave behind.

What a file holds is sure once the file was synced; a name in a folder, once the folder was. Of later changes a disk may
have all, none, or some: of a file's, any of them in any part of 512 bytes; of a folder's, the first ones. Files and
folders do not wait for each other. What a file was given before a sync that failed is lost, and another sync does not
bring it back (`_forget`). No file system that keeps POSIX' rules does worse; ext4 does better in most of it.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path, PurePosixPath

from tests.scheduler.store.writes.log import Call, What

SECTOR_BYTES = 512


class Fate(Enum):
    """What becomes of the changes that were not synced. By chance: of each file and folder, one of the three."""

    LOST = "lost"
    KEPT = "kept"
    SOME = "some"
    CHANCE = "by chance"


@dataclass
class _File:
    """`sure`: what it holds on the disk at least; `later`: changes since."""

    sure: bytearray = field(default_factory=bytearray)
    later: list[Call] = field(default_factory=list)


@dataclass
class _Folder:
    """Files and folders by name. A change gives a name a file, or none (0)."""

    sure: dict[str, int] = field(default_factory=dict)
    later: list[dict[str, int]] = field(default_factory=list)


class Disk:
    """Takes calls one by one."""

    def __init__(self) -> None:
        self._files: dict[int, _File] = defaultdict(_File)
        self._folders: dict[int, _Folder] = {}
        self._at: dict[str, int] = {}
        """The folders, by their paths at this moment."""
        self._names: dict[str, int] = {}

    def take(self, call: Call) -> None:
        """Let one more call have happened."""
        path, to = PurePosixPath(call.name), PurePosixPath(call.to)
        match call.what:
            case What.MKDIR:
                self._folders[call.file] = _Folder()
                self._at[str(path)] = call.file
                if call.name:
                    self._change(path, call.file)
            case What.CREATE:
                self._names[call.name] = call.file
                self._change(path, call.file)
            case What.UNLINK | What.RMDIR:
                self._names.pop(call.name, None)
                self._change(path, 0)
            case What.RENAME:
                file = self._names.pop(call.name)
                self._names[call.to] = file
                if path.parent == to.parent:
                    self._folder(path).later.append({path.name: 0, to.name: file})
                else:
                    self._change(path, 0)
                    self._change(to, file)
            case What.WRITE | What.TRUNCATE:
                self._files[call.file].later.append(call)
            case What.SYNC:
                self._sync(call.file)
            case What.SYNC_FAILED:
                self._forget(call.file)
            case What.SAY:
                pass

    def left(self, target: Path, fate: Fate, dice: random.Random) -> None:
        """Write into the folder `target`, which is empty, what a loss of power at this moment may leave."""
        root = self._at["."]
        self._leave(root, target, fate, dice)

    def _sync(self, file: int) -> None:
        if file in self._folders:
            folder = self._folders[file]
            for change in folder.later:
                folder.sure |= change
            folder.later.clear()
        else:
            kept = self._files[file]
            for call in kept.later:
                _apply(kept.sure, call)
            kept.later.clear()

    def _forget(self, file: int) -> None:
        """Lose what was written to a file since its last sync: Linux takes it for written, and never tries again.

        The process goes on reading it from memory, and a later sync succeeds. Only the file's size may still change.
        """
        if file in self._folders:
            return
        kept = self._files[file]
        whole = self._content(file, Fate.KEPT, random.Random())
        sizes = [call for call in kept.later if call.what is What.TRUNCATE]
        kept.later = [*sizes, Call(What.TRUNCATE, file, len(whole))]

    def _folder(self, path: PurePosixPath) -> _Folder:
        return self._folders[self._at[str(path.parent)]]

    def _change(self, path: PurePosixPath, file: int) -> None:
        self._folder(path).later.append({path.name: file})

    def _leave(self, number: int, target: Path, fate: Fate, dice: random.Random) -> None:
        folder = self._folders[number]
        names = dict(folder.sure)
        for change in folder.later[: _how_many(len(folder.later), _one(fate, dice), dice)]:
            names |= change
        for name, file in names.items():
            place = target / name
            if file in self._folders:
                place.mkdir(mode=0o700)
                self._leave(file, place, fate, dice)
            elif file:
                place.write_bytes(self._content(file, _one(fate, dice), dice))
                place.chmod(0o600)

    def _content(self, file: int, fate: Fate, dice: random.Random) -> bytes:
        kept = self._files[file]
        content = bytearray(kept.sure)
        if fate is Fate.KEPT:
            for call in kept.later:
                _apply(content, call)
        elif fate is Fate.SOME:
            for call in kept.later:
                if dice.random() < 0.5:
                    _apply(content, call, dice)
        return bytes(content)


def _one(fate: Fate, dice: random.Random) -> Fate:
    return dice.choice([Fate.LOST, Fate.KEPT, Fate.SOME]) if fate is Fate.CHANCE else fate


def _how_many(count: int, fate: Fate, dice: random.Random) -> int:
    if fate is Fate.SOME:
        return dice.randint(0, count)
    return count if fate is Fate.KEPT else 0


def _apply(content: bytearray, call: Call, torn: random.Random | None = None) -> None:
    """Let a change of a file happen; with `torn`, a write only in some sectors, and zeros where the file grew."""
    if call.what is What.TRUNCATE:
        del content[call.offset :]
        content.extend(bytes(call.offset - len(content)))
        return
    end = call.offset + len(call.data)
    content.extend(bytes(max(0, end - len(content))))
    at = call.offset
    while at < end:
        stop = min(end, (at // SECTOR_BYTES + 1) * SECTOR_BYTES)
        if torn is None or torn.random() < 0.5:
            content[at:stop] = call.data[at - call.offset : stop - call.offset]
        at = stop
