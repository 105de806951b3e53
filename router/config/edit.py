"""Edits of the operators' file that keep its comments and layout: single values are replaced in place. Text in, text
out; no I/O.

Each result is read again and compared with the intended change. An edit is refused if anything else changed, such as an
alias that is used in several places, or if the result has a mistake.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec
import yaml

from router.config.reader import ConfigError, load
from router.config.yaml_nodes import Node, nearest
from router.errors import RouterError
from router.routing.table import WEIGHT_TOTAL, SetState, Table

MAX_WHY_CHARS: Final = 500
_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9._@-]*")
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NOT_PLAIN: Final = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})
Plain = dict[str, Any] | list[Any] | str


class EditError(RouterError):
    """The file cannot be edited in this way; nothing was changed."""


class Draft(msgspec.Struct, frozen=True):
    """A new version of the file's text; each edit returns another draft. `meant` is the content that the text must
    have, every scalar as text."""

    text: str
    meant: dict[str, Any]

    @classmethod
    def of(cls, text: bytes) -> Draft:
        """Raises `ConfigError` if the file already has mistakes: correct those first."""
        load(text)
        decoded = text.decode("utf-8")
        return cls(decoded, cast(dict[str, Any], _plain(_compose(decoded))))

    @property
    def table(self) -> Table:
        return load(self.text.encode()).table

    def with_weights(self, shares: Mapping[str, int], *, rule: str | None = None) -> Draft:
        """Change the default weights, or those of a rule, in hundredths of a percent; sets that are left out keep
        theirs."""
        path: list[str | int] = ["default", "weights"]
        if rule is not None:
            path = ["rules", self._rule_number(rule), "weights"]
        node = _at(_compose(self.text), path)
        if node is None:
            raise EditError(f"rule {rule!r} has no weights, it says `to:`; edit it by hand")
        present = cast(Mapping[str, Any], _get(self.meant, path))
        values = {name: _percent(share) for name, share in shares.items() if share or name in present}
        return self._put(path, values)

    def with_state(self, name: str, state: SetState) -> Draft:
        """Change a set's state."""
        sets = cast(Mapping[str, Any], self.meant["sets"])
        if name not in sets:
            raise EditError(f"no set {name!r} in the file; {nearest(name, sets)}")
        return self._put(["sets", name], {"state": str(state)})

    def stamped(self, *, by: str, why: str, version: int | None = None) -> Draft:
        """Set the next version number (or `version`), and record who changed the file and why."""
        if len(why) > MAX_WHY_CHARS:
            raise EditError(f"the reason may be {MAX_WHY_CHARS} characters long; it has {len(why)}")
        number = int(cast(str, self.meant["version"])) + 1 if version is None else version
        draft = self._put([], {"version": str(number)})
        if "change" in self.meant:
            return draft._put(["change"], {"by": by, "why": why})
        line = f"change: {{by: {_scalar(by)}, why: {_scalar(why)}}}"
        return draft._insert_after_version(line, {"by": by, "why": why})

    def checked(self) -> bytes:
        """Return the new file. Raises `EditError` unless it is exactly what was meant."""
        data = self.text.encode()
        try:
            load(data)
        except ConfigError as error:
            raise EditError(f"the edit would leave a mistake, nothing was changed: {error}") from None
        if _plain(_compose(self.text)) != self.meant:
            raise EditError(
                "the edit would change more than it should, nothing was changed; "
                "where the file uses anchors and aliases, edit it by hand"
            )
        return data

    def _put(self, path: list[str | int], values: Mapping[str, str]) -> Draft:
        """Replace scalars of the mapping at `path`, and add those that it lacks."""
        meant = copy.deepcopy(self.meant)
        _get(meant, path).update(values)
        node = _at(_compose(self.text), path)
        if not isinstance(node, yaml.MappingNode):
            raise EditError(f"{'.'.join(map(str, path))} is no mapping; edit it by hand")
        edits: list[tuple[int, int, str]] = []
        known = {key.value: value for key, value in node.value}
        for key, value in values.items():
            scalar = known.get(key)
            if scalar is None:
                continue
            if not isinstance(scalar, yaml.ScalarNode):
                raise EditError(f"{'.'.join(map(str, (*path, key)))} is no plain value; edit it by hand")
            edits.append((scalar.start_mark.index, scalar.end_mark.index, _scalar(value)))
        added = [f"{key}: {_scalar(value)}" for key, value in values.items() if key not in known]
        if added:
            edits.append(self._addition(node, added))
        text = self.text
        for start, end, new in sorted(edits, reverse=True):
            text = text[:start] + new + text[end:]
        return Draft(text, meant)

    def _addition(self, node: yaml.MappingNode, pairs: list[str]) -> tuple[int, int, str]:
        """Return where new pairs of a mapping are inserted, and their text."""
        if not node.value:
            place = node.start_mark.index + 1  # An empty mapping can only be written {}.
            return place, place, ", ".join(pairs)
        if node.flow_style:
            place = node.value[-1][1].end_mark.index
            return place, place, "".join(f", {pair}" for pair in pairs)
        # A block: lines of their own before its first key, which is always the first thing on its line.
        first = node.value[0][0].start_mark
        indent = " " * first.column
        return first.index, first.index, "".join(f"{pair}{self._newline}{indent}" for pair in pairs)

    def _insert_after_version(self, line: str, change: dict[str, str]) -> Draft:
        root = cast(yaml.MappingNode, _compose(self.text))
        meant = {**self.meant, "change": change}
        value = next(value for key, value in root.value if key.value == "version")
        place = value.end_mark.index
        if root.flow_style:
            return Draft(f"{self.text[:place]}, {line}{self.text[place:]}", meant)
        end = self.text.find("\n", place)
        if end < 0:
            return Draft(f"{self.text}{self._newline}{line}{self._newline}", meant)
        return Draft(f"{self.text[: end + 1]}{line}{self._newline}{self.text[end + 1 :]}", meant)

    @property
    def _newline(self) -> str:
        return "\r\n" if "\r\n" in self.text else "\n"

    def _rule_number(self, name: str) -> int:
        rules = cast(list[dict[str, Any]], self.meant.get("rules", []))
        names = [rule["name"] for rule in rules]
        if name not in names:
            raise EditError(f"no rule {name!r} in the file; {nearest(name, names)}")
        return names.index(name)


def spread(before: Mapping[str, int], wanted: Mapping[str, int]) -> dict[str, int]:
    """Return all weights of a table, in hundredths of a percent, after some sets get the `wanted` ones. The others
    share the rest in their old proportions; the sum is exactly 100 %.

    Raises `EditError` if that is impossible: too much is wanted, or no other set can take the rest.
    """
    given = sum(wanted.values())
    if given > WEIGHT_TOTAL:
        raise EditError(f"the weights given total {given / 100:g}, more than 100; lower them")
    rest = WEIGHT_TOTAL - given
    others = {name: share for name, share in before.items() if name not in wanted}
    total = sum(others.values())
    if total == 0:
        if rest:
            raise EditError(
                f"the weights given total {given / 100:g}, and no other set has a weight that could take the rest; "
                "give all that shall have one, 100 in total"
            )
        return {**others, **wanted}
    shares = {name: share * rest // total for name, share in others.items()}
    left = rest - sum(shares.values())
    by_remainder = sorted(others, key=lambda name: (-(others[name] * rest % total), name))
    for name in by_remainder[:left]:
        shares[name] += 1
    return {name: {**shares, **wanted}[name] for name in {**before, **wanted}}


def older_as_new(older: bytes, version: int, *, by: str, why: str) -> bytes:
    """Return an older file's content as a new version. Raises `ConfigError` if today's router finds mistakes in it, and
    `EditError`."""
    return Draft.of(older).stamped(by=by, why=why, version=version).checked()


def _compose(text: str) -> Node:
    # libyaml leaves a byte order mark out when it counts places.
    loader = yaml.SafeLoader if text.startswith("\ufeff") else _LOADER
    return cast(Node, yaml.compose(text, Loader=loader))


def _plain(node: Node) -> Plain:
    """A node's content, scalars as they are written, so that 5 and 5.00 differ."""
    if isinstance(node, yaml.MappingNode):
        return {key.value: _plain(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    return str(node.value)


def _at(node: Node | None, path: list[str | int]) -> Node | None:
    for step in path:
        if isinstance(node, yaml.MappingNode):
            node = next((value for key, value in node.value if key.value == step), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            node = node.value[step]
        else:
            return None
    return node


def _get(content: Any, path: list[str | int]) -> Any:
    for step in path:
        content = content[step]
    return content


def _percent(share: int) -> str:
    return f"{share // 100}" if share % 100 == 0 else f"{share / 100:.2f}".rstrip("0")


def _scalar(value: str) -> str:
    """A YAML scalar that reads as this text."""
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
        return value
    if _PLAIN.fullmatch(value) and value.lower() not in _NOT_PLAIN:
        return value
    return '"' + "".join(map(_escaped, value)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
