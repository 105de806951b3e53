"""Groups of commands about a part of the service that one file describes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ops.cli.command import Context, Group

_YAML: Final = (".yaml", ".yml", ".json")
_HELP: Final = ("-h", "--help")


class FileGroup(Group):
    """`gcompute NAME FILE` is short for `gcompute NAME start FILE`."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        first = args[0] if args else ""
        is_option = first.startswith("-") and first not in _HELP
        if first and first not in self.entries and (is_option or _is_file(first)):
            args = ["start", *args]
        return super().parse_args(ctx, args)


def _is_file(word: str) -> bool:
    return "/" in word or word.endswith(_YAML) or Path(word).exists()
