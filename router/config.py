"""The operators' YAML file → a routing table. Strict: every mistake is told with its line, its column and
what to write."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import yaml

from .health import HealthPolicy
from .retry import RetryPolicy
from .table import (
    WEIGHT_TOTAL,
    IfDown,
    KeyPart,
    KeySource,
    Match,
    MatchKind,
    Rule,
    SetEntry,
    SetState,
    Table,
    Weights,
)
from .yaml_nodes import ConfigError, Field, Mistake, Node, NodeReader, nearest

__all__ = ["MAX_FILE_BYTES", "ConfigError", "Loaded", "Mistake", "load", "parse_url"]

MAX_FILE_BYTES = 1024 * 1024

_SET_NAME = re.compile(r"[a-z0-9]{1,31}")
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml: ten times as fast
Default = tuple[tuple[KeyPart, ...], Weights]
_NO_SETS: dict[str, SetEntry] = {}
_NO_DEFAULT: Default = ((), Weights({}, {}))
_NO_RULES: tuple[Rule, ...] = ()
_USUAL_KEY: tuple[KeyPart, ...] = (KeyPart(KeySource.HEADER, b"x-user-id"),)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file that holds no mistake. `warnings` are for operators."""

    table: Table
    warnings: tuple[str, ...] = ()


def load(text: bytes, *, set_urls: Mapping[str, str] | None = None) -> Loaded:
    """Read the file's bytes. `set_urls` replaces the URL of sets by name. Raises `ConfigError` with every
    mistake found."""
    return _Reader(set_urls=set_urls or {}).read(text)


def parse_url(url: str) -> tuple[str, int]:
    """Host and port of a set's URL. Raises `ValueError` that says what to write."""
    example = 'write it like "http://127.0.0.1:8101"'
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"{url!r} is no URL; {example}") from None
    if parts.scheme != "http":
        raise ValueError(f"{url!r} must begin with http:// (TLS to sets is not supported); {example}")
    if not parts.hostname or parts.username is not None or parts.password is not None:
        raise ValueError(f"{url!r} must name a host, and no user; {example}")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"{url!r} must end after the port; {example}")
    return parts.hostname, port if port is not None else 80


@dataclass(slots=True)
class _Reader(NodeReader):
    set_urls: Mapping[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    # The file.

    def read(self, text: bytes) -> Loaded:
        if len(text) > MAX_FILE_BYTES:
            raise ConfigError([Mistake(1, 1, f"the file is larger than {MAX_FILE_BYTES // 1024} KiB")])
        try:
            root = yaml.compose(text.decode("utf-8"), Loader=_LOADER)
        except UnicodeDecodeError as error:
            line = text[: error.start].count(b"\n") + 1
            raise ConfigError([Mistake(line, 1, "the file must be UTF-8 text")]) from None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
            raise ConfigError(
                [Mistake(*place, f"not valid YAML: {error.problem or error.context}")]
            ) from None
        except (yaml.YAMLError, RecursionError) as error:
            raise ConfigError([Mistake(1, 1, f"not valid YAML: {type(error).__name__}")]) from None
        if root is None:
            raise ConfigError([Mistake(1, 1, "the file is empty; it needs `version`, `sets` and `default`")])
        try:
            table = self._file(root, hashlib.sha256(text).hexdigest())
        except RecursionError:
            raise ConfigError([Mistake(1, 1, "the file is nested too deeply")]) from None
        if self.mistakes or table is None:
            raise ConfigError(self.mistakes or [Mistake(1, 1, "the file must be a mapping")])
        return Loaded(table, tuple(self.warnings))

    def _file(self, root: Node, digest: str) -> Table | None:
        known = ("version", "change", "sets", "rules", "default", "health", "retry", "rollout")
        fields = self.mapping(root, "the file", known, required=("version", "sets", "default"))
        version = self.optional(
            fields, "version", lambda n: self.whole(n, "version", 0, 10**12 - 1, "version: 42"), 0
        )
        by, why = self.optional(fields, "change", self._change, ("", ""))
        sets = self.optional(fields, "sets", self._sets, _NO_SETS)
        for name in set(self.set_urls) - set(sets):
            if "sets" in fields:
                self.wrong(
                    fields["sets"].key,
                    f"--set-url names set {name!r}, which is not among the sets; add it here",
                )
        key_parts, default = self.optional(fields, "default", lambda n: self._default(n, sets), _NO_DEFAULT)
        rules = self.optional(fields, "rules", lambda n: self._rules(n, sets), _NO_RULES)
        health = self.optional(fields, "health", self._health, HealthPolicy())
        retry = self.optional(fields, "retry", self._retry, RetryPolicy())
        if "rollout" in fields:
            self._rollout(fields["rollout"].value, sets)
            self.warnings.append(
                "`rollout` is read and checked, but steps are not taken automatically yet: change weights by hand"
            )
        if self.mistakes:
            return None
        return Table(
            version=version,
            sets=sets,
            default=default,
            rules=rules,
            key_parts=key_parts,
            health=health,
            retry=retry,
            changed_by=by,
            changed_why=why,
            digest=digest,
        )

    def _change(self, node: Node) -> tuple[str, str]:
        fields = self.mapping(node, "`change`", ("by", "why"))
        by = self.optional(fields, "by", lambda n: self.text(n, "`by`", "by: ops"), "")
        why = self.optional(fields, "why", lambda n: self.text(n, "`why`", 'why: "ramp b to 5 %"'), "")
        return by, why

    def _sets(self, node: Node) -> dict[str, SetEntry]:
        sets: dict[str, SetEntry] = {}
        fields = self.mapping(node, "`sets`", None)
        if isinstance(node, yaml.MappingNode) and not node.value:
            self.wrong(node, '`sets` is empty; write a: {url: "http://127.0.0.1:8101"}')
        for name, entry in fields.items():
            if not _SET_NAME.fullmatch(name):
                self.wrong(
                    entry.key,
                    f"a set's name is 1 to 31 small letters and digits (ids begin with it), not {name!r}",
                )
                continue
            parsed = self._set(name, entry.value)
            if parsed is not None:
                sets[name] = parsed
        return sets

    def _set(self, name: str, node: Node) -> SetEntry | None:
        what = f"set {name!r}"
        fields = self.mapping(node, what, ("url", "state", "max_inflight"), required=("url",))
        if "url" not in fields:
            return None
        url = self.text(fields["url"].value, f"the url of {what}", 'url: "http://127.0.0.1:8101"')
        address: tuple[str, int] | None = None
        if url is not None:
            try:
                address = parse_url(url)
            except ValueError as error:
                self.wrong(fields["url"].value, f"the url of {what}: {error}")
        if name in self.set_urls:
            try:
                address = parse_url(self.set_urls[name])
            except ValueError as error:
                self.wrong(fields["url"].value, f"--set-url of {what}: {error}")
        state = self.optional(
            fields, "state", lambda n: self.one_of(n, f"the state of {what}", SetState), "ready"
        )
        inflight = None
        if "max_inflight" in fields:
            inflight = self.whole(
                fields["max_inflight"].value, f"max_inflight of {what}", 1, 1_000_000, "max_inflight: 500"
            )
        if address is None:
            return None
        return SetEntry(name, address[0], address[1], SetState(state), inflight)

    def _weights(self, node: Node, what: str, sets: Mapping[str, SetEntry]) -> Weights | None:
        fields = self.mapping(node, what, None)
        shares: dict[str, int] = {}
        good = isinstance(node, yaml.MappingNode)
        for name, entry in fields.items():
            if name not in sets:
                self.wrong(entry.key, f"{what} names set {name!r}, which `sets` lacks; {nearest(name, sets)}")
                good = False
                continue
            share = self.hundredths(entry.value, f"the weight of {name!r}")
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
            self.wrong(node, f"{what} must total exactly 100, not {total / 100:.2f}; {direction} {off:.2f}")
            return None
        return Weights(sets, shares)

    def _default(
        self, node: Node, sets: Mapping[str, SetEntry]
    ) -> tuple[tuple[KeyPart, ...], Weights] | None:
        fields = self.mapping(node, "`default`", ("key", "weights"), required=("weights",))
        parts = self.optional(fields, "key", self._key, _USUAL_KEY)
        if "weights" not in fields:
            return None
        weights = self._weights(fields["weights"].value, "the weights of `default`", sets)
        return None if weights is None else (parts, weights)

    def _key(self, node: Node) -> tuple[KeyPart, ...]:
        example = 'key: ["header:x-user-id"]'
        parts = []
        for item in self.items(node, "`key`", example):
            text = self.text(item, "a key", example)
            if text is None:
                continue
            if text in ("account", "image", "client"):
                parts.append(KeyPart(KeySource(text)))
            elif text.startswith("header:") and _HEADER_NAME.fullmatch(text[7:]):
                parts.append(KeyPart(KeySource.HEADER, text[7:].lower().encode()))
            else:
                self.wrong(
                    item, f"a key is header:NAME, account, image or client, not {text!r}; write {example}"
                )
        return tuple(parts)

    def _rules(self, node: Node, sets: Mapping[str, SetEntry]) -> tuple[Rule, ...]:
        rules: list[Rule] = []
        names: dict[str, int] = {}
        for item in self.items(node, "`rules`", "- {name: qa, when: {header: {x-canary: b}}, to: b}"):
            fields = self.mapping(
                item, "a rule", ("name", "when", "to", "weights", "if_down"), required=("name", "when")
            )
            name = self.optional(fields, "name", lambda n: self.text(n, "a rule's name", "name: qa"), "")
            if name and name in names:
                self.wrong(
                    fields["name"].value,
                    f"rule {name!r} stands twice (first on line {names[name]}); rename one",
                )
            elif name:
                names[name] = fields["name"].key.start_mark.line + 1
            weights = self._rule_target(item, fields, f"rule {name!r}", sets)
            down = self.optional(fields, "if_down", lambda n: self.one_of(n, "if_down", IfDown), "default")
            tests = self.optional(fields, "when", self._when, _When())
            if weights is not None:
                rules.append(
                    Rule(
                        name,
                        weights,
                        IfDown(down),
                        tests.headers,
                        tests.account,
                        tests.image,
                        tests.path,
                        tests.method,
                    )
                )
        return tuple(rules)

    def _rule_target(
        self, item: Node, fields: dict[str, Field], what: str, sets: Mapping[str, SetEntry]
    ) -> Weights | None:
        if ("to" in fields) == ("weights" in fields):
            self.wrong(item, f"{what} needs either `to: SET` or `weights: {{…}}`")
            return None
        if "weights" in fields:
            return self._weights(fields["weights"].value, f"the weights of {what}", sets)
        to = self.text(fields["to"].value, f"`to` of {what}", "to: b")
        if to is None:
            return None
        if to not in sets:
            self.wrong(
                fields["to"].value, f"{what} goes to set {to!r}, which `sets` lacks; {nearest(to, sets)}"
            )
            return None
        return Weights(sets, {to: WEIGHT_TOTAL})

    def _when(self, node: Node) -> _When:
        fields = self.mapping(node, "`when`", ("header", "account", "image", "path", "method"))
        if isinstance(node, yaml.MappingNode) and not node.value:
            self.wrong(node, "`when` is empty and would match everything; put that into `default`")
        headers: list[tuple[bytes, Match]] = []
        if "header" in fields:
            for name, entry in self.mapping(fields["header"].value, "`header`", None).items():
                if not _HEADER_NAME.fullmatch(name):
                    self.wrong(entry.key, f"{name!r} is no header's name")
                    continue
                match = self._match(entry.value, f"header {name!r}")
                if match is not None:
                    headers.append((name.lower().encode(), match))

        def test(name: str) -> Match | None:
            return self._match(fields[name].value, f"`{name}`") if name in fields else None

        return _When(tuple(headers), test("account"), test("image"), test("path"), test("method"))

    def _match(self, node: Node, what: str) -> Match | None:
        if isinstance(node, yaml.ScalarNode):
            text = self.text(node, what, "a text, or {prefix: …}, {in: […]}, {regex: …}")
            return None if text is None else Match(MatchKind.EXACT, text)
        fields = self.mapping(node, what, tuple(MatchKind))
        if len(fields) != 1:
            if isinstance(node, yaml.MappingNode) and len(node.value) != 1:
                self.wrong(node, f"{what} needs exactly one of exact, prefix, in, regex")
            return None
        kind, entry = next(iter(fields.items()))
        if kind == MatchKind.IN:
            texts = [
                self.text(item, f"a value of {what}")
                for item in self.items(entry.value, f"`in` of {what}", "in: [a, b]")
            ]
            return Match(MatchKind.IN, texts=frozenset(text for text in texts if text is not None))
        text = self.text(entry.value, f"`{kind}` of {what}")
        if text is None:
            return None
        if kind != MatchKind.REGEX:
            return Match(MatchKind(kind), text)
        try:
            return Match(MatchKind.REGEX, pattern=re.compile(text))
        except re.error as error:
            self.wrong(entry.value, f"`regex` of {what} is no regular expression: {error}")
            return None

    def _health(self, node: Node) -> HealthPolicy:
        usual = HealthPolicy()
        fields = self.mapping(node, "`health`", ("path", "interval", "timeout", "fall", "rise"))
        path = self.optional(fields, "path", lambda n: self.text(n, "path", "path: /readyz"), usual.path)
        if not re.fullmatch(r"/[\x21\x22\x24-\x7e]*", path):
            self.wrong(fields["path"].value, "path must begin with '/'; write path: /readyz")
        interval = self.optional(
            fields,
            "interval",
            lambda n: self.duration_s(n, "interval", 0.05, 3600, "interval: 2s"),
            usual.interval_s,
        )
        timeout = self.optional(
            fields,
            "timeout",
            lambda n: self.duration_s(n, "timeout", 0.05, 60, "timeout: 2s"),
            usual.timeout_s,
        )
        fall = self.optional(fields, "fall", lambda n: self.whole(n, "fall", 1, 100, "fall: 3"), usual.fall)
        rise = self.optional(fields, "rise", lambda n: self.whole(n, "rise", 1, 100, "rise: 2"), usual.rise)
        return HealthPolicy(path, interval, fall, rise, timeout)

    def _retry(self, node: Node) -> RetryPolicy:
        usual = RetryPolicy()
        fields = self.mapping(node, "`retry`", ("attempts", "budget", "replay_body_max", "retry_sync"))
        attempts = self.optional(
            fields, "attempts", lambda n: self.whole(n, "attempts", 1, 10, "attempts: 2"), usual.attempts
        )
        budget = self.optional(
            fields, "budget", lambda n: self.percent(n, "budget", "budget: 20%"), usual.budget
        )
        replay = self.optional(
            fields,
            "replay_body_max",
            lambda n: self.size_bytes(n, "replay_body_max", 1024 * 1024, "replay_body_max: 64KiB"),
            usual.replay_body_max_bytes,
        )
        sync = self.optional(fields, "retry_sync", lambda n: self.truth(n, "retry_sync"), usual.retry_sync)
        return RetryPolicy(attempts, budget, replay, sync)

    def _rollout(self, node: Node, sets: Mapping[str, SetEntry]) -> None:
        """Check a rollout's shape; its automation comes later."""
        fields = self.mapping(
            node,
            "`rollout`",
            ("set", "steps", "abort_when", "on_no_data", "dry_run"),
            required=("set", "steps"),
        )
        if "set" in fields:
            name = self.text(fields["set"].value, "the rollout's set", "set: b")
            if name is not None and name not in sets:
                self.wrong(
                    fields["set"].value,
                    f"the rollout's set {name!r} is not in `sets`; {nearest(name, sets)}",
                )
        if "steps" in fields:
            example = "[{weight: 1, hold: 10m}, {pause: true}]"
            for step in self.items(fields["steps"].value, "`steps`", example):
                self._step(step, example)
        if "abort_when" in fields:
            known = ("min_requests", "error_rate_over_baseline", "p95_over_baseline")
            limits = self.mapping(fields["abort_when"].value, "`abort_when`", known)
            if "min_requests" in limits:
                self.whole(limits["min_requests"].value, "min_requests", 1, 10**9, "min_requests: 100")
            for name in known[1:]:
                if name in limits:
                    self.percent(limits[name].value, name, f"{name}: 2%")
        if "on_no_data" in fields:
            self.one_of(fields["on_no_data"].value, "on_no_data", ("pause", "abort"))
        if "dry_run" in fields:
            self.truth(fields["dry_run"].value, "dry_run")

    def _step(self, node: Node, example: str) -> None:
        fields = self.mapping(node, "a step", ("weight", "hold", "pause"))
        if "pause" in fields:
            if self.truth(fields["pause"].value, "pause") is False or len(fields) > 1:
                self.wrong(node, "a pause is a step of its own; write {pause: true}")
        elif "weight" not in fields:
            self.wrong(node, f"a step needs a weight or a pause; write {example}")
        else:
            self.hundredths(fields["weight"].value, "the step's weight")
            if "hold" in fields:
                self.duration_s(fields["hold"].value, "hold", 1, 30 * 86400, "hold: 10m")


@dataclass(frozen=True, slots=True)
class _When:
    headers: tuple[tuple[bytes, Match], ...] = ()
    account: Match | None = None
    image: Match | None = None
    path: Match | None = None
    method: Match | None = None
