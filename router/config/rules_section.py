"""The `rules` section and `weights` of the operators' file → rules and weights, or mistakes with their places."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec
import yaml

from router.config.settings import RULE, WHEN
from router.config.yaml_nodes import Field, Node, NodeReader, nearest
from router.routing.expressions import BadExpression
from router.routing.expressions import check as check_expression
from router.routing.rules import IfDown, Match, MatchKind, Rule, RuleBook
from router.routing.weights import WEIGHT_TOTAL, SetEntry, Weights

HEADER_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def read_weights(reader: NodeReader, node: Node, what: str, sets: Mapping[str, SetEntry]) -> Weights | None:
    """Percentages by set that total exactly 100."""
    fields = reader.mapping(node, what, None)
    shares: dict[str, int] = {}
    good = isinstance(node, yaml.MappingNode)
    for name, entry in fields.items():
        if name not in sets:
            reader.wrong(entry.key, f"{what} names set {name!r}, which `sets` lacks; {nearest(name, sets)}")
            good = False
            continue
        share = reader.hundredths(entry.value, f"the weight of {name!r}")
        if share is None:
            good = False
        else:
            shares[name] = share
    if not good or len(shares) != len(node.value):
        return None
    total = sum(shares.values())
    if total != WEIGHT_TOTAL:
        off = abs(WEIGHT_TOTAL - total) / 100
        direction = "add" if total < WEIGHT_TOTAL else "take away"
        reader.wrong(node, f"{what} must total exactly 100, not {total / 100:.2f}; {direction} {off:.2f}")
        return None
    return Weights(sets, shares)


def read_rules(reader: NodeReader, node: Node, sets: Mapping[str, SetEntry]) -> tuple[Rule, ...]:
    """The rules, in their order."""
    rules: list[Rule] = []
    lines: dict[str, int] = {}
    for item in reader.items(node, "`rules`", "- {name: qa, when: {header: {x-canary: b}}, to: b}"):
        fields = reader.mapping(item, "a rule", RULE.names, required=("name", "when"))
        name = reader.optional(fields, "name", lambda n: reader.text(n, "a rule's name", "name: qa"), "")
        if name and name in lines:
            reader.wrong(
                fields["name"].value,
                f"rule {name!r} appears twice (first on line {lines[name]}); rename one",
            )
        elif name:
            lines[name] = fields["name"].key.start_mark.line + 1
        elif "name" in fields:
            reader.wrong(fields["name"].value, "a rule needs a name; write name: qa")
        weights = _target(reader, item, fields, f"rule {name!r}", sets)
        down = reader.optional(fields, "if_down", lambda n: reader.one_of(n, "if_down", IfDown), "default")
        when = reader.optional(fields, "when", lambda n: _when(reader, n), _When())
        if weights is not None:
            rules.append(
                Rule(
                    name,
                    weights,
                    IfDown(down),
                    when.headers,
                    when.account,
                    when.image,
                    when.path,
                    when.method,
                )
            )
    try:
        RuleBook(rules)
    except BadExpression as error:
        reader.wrong(node, f"the regular expressions of `rules` {error}")
    return tuple(rules)


class _When(msgspec.Struct, frozen=True):
    headers: tuple[tuple[bytes, Match], ...] = ()
    account: Match | None = None
    image: Match | None = None
    path: Match | None = None
    method: Match | None = None


def _target(
    reader: NodeReader, item: Node, fields: dict[str, Field], what: str, sets: Mapping[str, SetEntry]
) -> Weights | None:
    if not isinstance(item, yaml.MappingNode):
        return None
    if ("to" in fields) == ("weights" in fields):
        reader.wrong(item, f"{what} needs either `to: SET` or `weights: {{…}}`")
        return None
    if "weights" in fields:
        return read_weights(reader, fields["weights"].value, f"the weights of {what}", sets)
    to = reader.text(fields["to"].value, f"`to` of {what}", "to: b")
    if to is None:
        return None
    if to not in sets:
        reader.wrong(
            fields["to"].value, f"{what} goes to set {to!r}, which `sets` lacks; {nearest(to, sets)}"
        )
        return None
    return Weights(sets, {to: WEIGHT_TOTAL})


def _when(reader: NodeReader, node: Node) -> _When:
    fields = reader.mapping(node, "`when`", WHEN.names)
    if isinstance(node, yaml.MappingNode) and not node.value:
        reader.wrong(node, "`when` is empty and would match everything; put that into `default`")
    headers: list[tuple[bytes, Match]] = []
    if "header" in fields:
        value = fields["header"].value
        for name, entry in reader.mapping(value, "`header`", None).items():
            if not HEADER_NAME.fullmatch(name):
                reader.wrong(entry.key, f"{name!r} is no header's name; write header: {{x-canary: b}}")
                continue
            match = _match(reader, entry.value, f"header {name!r}")
            if match is not None:
                headers.append((name.lower().encode(), match))
        if isinstance(value, yaml.MappingNode) and not value.value:
            reader.wrong(value, "`header` names none and would match everything; write header: {x-canary: b}")

    def test(name: str) -> Match | None:
        return _match(reader, fields[name].value, f"`{name}`") if name in fields else None

    return _When(tuple(headers), test("account"), test("image"), test("path"), test("method"))


def _match(reader: NodeReader, node: Node, what: str) -> Match | None:
    if isinstance(node, yaml.ScalarNode):
        text = reader.text(node, what, "a text, or {prefix: …}, {in: […]}, {regex: …}")
        return None if text is None else Match(MatchKind.EXACT, text)
    if not isinstance(node, yaml.MappingNode):
        reader.wrong(node, f"{what} must be a text, or {{prefix: …}}, {{in: […]}}, {{regex: …}}")
        return None
    fields = reader.mapping(node, what, tuple(MatchKind))
    if len(fields) != 1:
        if len(node.value) != 1:
            reader.wrong(node, f"{what} needs exactly one of exact, prefix, in, regex; write {{prefix: …}}")
        return None
    kind, entry = next(iter(fields.items()))
    if kind == MatchKind.IN:
        return _one_of(reader, entry.value, what)
    text = reader.text(entry.value, f"`{kind}` of {what}")
    if text is None:
        return None
    if kind == MatchKind.PREFIX and not text:
        reader.wrong(entry.value, f"an empty prefix of {what} would match everything; write its beginning")
    if kind != MatchKind.REGEX:
        return Match(MatchKind(kind), text)
    try:
        check_expression(text)
    except BadExpression as error:
        reader.wrong(entry.value, f"`regex` of {what} {error}")
        return None
    return Match(MatchKind.REGEX, text)


def _one_of(reader: NodeReader, node: Node, what: str) -> Match | None:
    items = reader.items(node, f"`in` of {what}", "in: [a, b]")
    if isinstance(node, yaml.SequenceNode) and not items:
        reader.wrong(node, f"`in` of {what} is empty and would never match; write in: [a, b]")
    texts = [reader.text(item, f"a value of {what}", "in: [a, b]") for item in items]
    return Match(MatchKind.IN, texts=frozenset(text for text in texts if text is not None))
