"""YAML nodes read strictly: every mistake is kept with its place and what to write instead.

Nodes, not values: so places are known, duplicate keys are seen, and `95.50` is still a text whose decimals can
be counted.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeVar

import msgspec
import yaml

from router.config.settings import Kind, Setting
from router.errors import RouterError

MAX_NODES: Final = 200_000
MAX_MISTAKES: Final = 100
"""Maximum number of mistakes that are reported: one error may be repeated a thousand times."""
MAX_MESSAGE: Final = 600
"""Characters; a longer one keeps its beginning and its end."""
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_SIZE: Final = re.compile(r"([0-9]+)(B|KiB|MiB)?")
_PERCENT: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)%")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES: Final = {"B": 1, "KiB": 1024, "MiB": 1024 * 1024}
Node = yaml.nodes.Node
T = TypeVar("T")


class Mistake(msgspec.Struct, frozen=True, order=True):
    """One thing that is wrong. `line` and `column` count from 1."""

    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.message}"


class ConfigError(RouterError):
    """The router's configuration file holds mistakes."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(sorted(mistakes))
        super().__init__("; ".join(map(str, self.mistakes)))


class Field(msgspec.Struct):
    key: Node
    value: Node


class NodeReader(msgspec.Struct):
    """Reads nodes of a shape, or notes a mistake and returns None (an empty mapping or list)."""

    mistakes: list[Mistake] = msgspec.field(default_factory=list)
    _nodes: int = 0

    def wrong(self, node: Node | None, message: str) -> None:
        mark = node.start_mark if node is not None else None
        if len(message) > MAX_MESSAGE:
            message = f"{message[: MAX_MESSAGE // 2]} … {message[-MAX_MESSAGE // 2 :]}"
        self.mistakes.append(
            Mistake(
                mark.line + 1 if mark is not None else 1, mark.column + 1 if mark is not None else 1, message
            )
        )
        if len(self.mistakes) >= MAX_MISTAKES:
            last = self.mistakes[-1]
            more = Mistake(last.line, last.column, f"more than {MAX_MISTAKES} mistakes; correct these first")
            raise ConfigError([*self.mistakes, more])

    def mapping(
        self, node: Node, what: str, known: Iterable[str] | None, required: Iterable[str] = ()
    ) -> dict[str, Field]:
        """The fields of a mapping by key; unknown, duplicate and missing keys are mistakes. `known` None: any
        key."""
        if not isinstance(node, yaml.MappingNode):
            self.wrong(node, f"{what} must be a mapping, `key: value`")
            return {}
        fields: dict[str, Field] = {}
        names = None if known is None else tuple(known)
        self._count(node)
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.wrong(key, f"a key of {what} must be a plain word")
                continue
            name = key.value
            if name in fields:
                first = fields[name].key.start_mark.line + 1
                self.wrong(key, f"{name!r} appears twice in {what} (first on line {first}); keep one")
                continue
            if names is not None and name not in names:
                self.wrong(key, f"unknown key {name!r} in {what}; {nearest(name, names)}")
                continue
            fields[name] = Field(key, value)
        for name in required:
            if name not in fields:
                self.wrong(node, f"{what} lacks {name!r}; add `{name}: …`")
        return fields

    def items(self, node: Node, what: str, example: str) -> list[Node]:
        if not isinstance(node, yaml.SequenceNode):
            self.wrong(node, f"{what} must be a list; write {example}")
            return []
        self._count(node)
        return list(node.value)

    def _count(self, node: yaml.CollectionNode) -> None:
        """Bound the content of a file after its aliases are followed: a small file may use a long list many times."""
        self._nodes += len(node.value)
        if self._nodes > MAX_NODES:
            line, column = node.start_mark.line + 1, node.start_mark.column + 1
            said = f"the file holds more than {MAX_NODES} entries; is this used over and over by an alias?"
            raise ConfigError([*self.mistakes, Mistake(line, column, said)])

    def text(self, node: Node, what: str, example: str = "") -> str | None:
        if not isinstance(node, yaml.ScalarNode) or node.tag == "tag:yaml.org,2002:null":
            self.wrong(node, f"{what} must be a text{'; write ' + example if example else ''}")
            return None
        return str(node.value)

    def whole(self, node: Node, what: str, low: int, high: int, example: str) -> int | None:
        if isinstance(node, yaml.ScalarNode) and not node.style and re.fullmatch(r"[0-9]{1,12}", node.value):
            value = int(node.value)
            if low <= value <= high:
                return value
        self.wrong(node, f"{what} must be a whole number from {low} to {high}; write {example}")
        return None

    def truth(self, node: Node, what: str) -> bool | None:
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:bool":
            return str(node.value).lower() in ("true", "yes", "on")
        self.wrong(node, f"{what} must be true or false")
        return None

    def duration_s(self, node: Node, what: str, low_s: float, high_s: float, example: str) -> float | None:
        match = _DURATION.fullmatch(node.value) if isinstance(node, yaml.ScalarNode) else None
        if match is not None:
            value = float(match[1]) * _SECONDS[match[2]]
            if low_s <= value <= high_s:
                return value
            self.wrong(node, f"{what} must lie between {low_s:g} s and {high_s:g} s; write {example}")
            return None
        self.wrong(node, f"{what} must be a time with its unit (ms, s, m, h); write {example}")
        return None

    def percent(self, node: Node, what: str, example: str) -> float | None:
        match = _PERCENT.fullmatch(node.value) if isinstance(node, yaml.ScalarNode) else None
        if match is not None and float(match[1]) <= 100.0:
            return float(match[1]) / 100.0
        self.wrong(node, f"{what} must be a percentage from 0% to 100%; write {example}")
        return None

    def size_bytes(self, node: Node, what: str, high: int, example: str) -> int | None:
        match = _SIZE.fullmatch(node.value) if isinstance(node, yaml.ScalarNode) else None
        if match is not None:
            value = int(match[1]) * _BYTES[match[2] or "B"]
            if value <= high:
                return value
            self.wrong(node, f"{what} may be {high // 1024} KiB at most; write {example}")
            return None
        self.wrong(node, f"{what} must be a size in B, KiB or MiB; write {example}")
        return None

    def one_of(self, node: Node, what: str, values: Iterable[str]) -> str | None:
        values = tuple(values)
        if isinstance(node, yaml.ScalarNode) and node.value in values:
            return str(node.value)
        self.wrong(node, f"{what} must be one of {', '.join(values)}")
        return None

    def hundredths(self, node: Node, what: str) -> int | None:
        """A weight in percent, as hundredths of a percent."""
        message = f"{what} must be a number from 0 to 100 with two decimals at most; write 5 or 0.25"
        if not isinstance(node, yaml.ScalarNode) or not re.fullmatch(r"[0-9]{1,3}(\.[0-9]+)?", node.value):
            self.wrong(node, message)
            return None
        try:
            value = Decimal(node.value) * 100
        except InvalidOperation:
            value = Decimal(-1)
        if value != value.to_integral_value() or not 0 <= value <= 10_000:
            self.wrong(node, message)
            return None
        return int(value)

    def setting(self, fields: dict[str, Field], setting: Setting, default: Any, what: str = "") -> Any:
        """The value of a described setting, or `default` where it is absent or wrong; see `settings.Kind` for its type:
        int, seconds, a share of 1, bytes, or bool. `what`: how messages call it."""
        field_ = fields.get(setting.name)
        if field_ is None:
            return default
        value = self._value(field_.value, setting, what or setting.name)
        return default if value is None else value

    def _value(self, node: Node, setting: Setting, what: str) -> Any:
        match setting.kind:
            case Kind.WHOLE:
                return self.whole(node, what, int(setting.least), int(setting.most), setting.line)
            case Kind.DURATION:
                return self.duration_s(node, what, setting.least, setting.most, setting.line)
            case Kind.PERCENT:
                return self.percent(node, what, setting.line)
            case Kind.SIZE:
                return self.size_bytes(node, what, int(setting.most), setting.line)
            case Kind.TRUTH:
                return self.truth(node, what)
            case _:
                return self.text(node, what, setting.line)

    @staticmethod
    def optional(fields: dict[str, Field], name: str, read: Callable[[Node], T | None], default: T) -> T:
        if name not in fields:
            return default
        value = read(fields[name].value)
        return default if value is None else value


def nearest(name: str, known: Iterable[str]) -> str:
    """Advice on a name that is unknown."""
    names = sorted(map(str, known))
    close = difflib.get_close_matches(name[:100], names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(names)}" if names else "none is known"
