"""Turns the operators' YAML file into a routing table. Strict: every mistake is reported with its line, its column and
what to write instead."""

from __future__ import annotations

import hashlib
import ipaddress
import math
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import msgspec
import yaml

from router.config.discovery_section import read_discovery
from router.config.doubts import doubts
from router.config.rollout_section import read_rollout
from router.config.rules_section import HEADER_NAME, read_rules, read_weights
from router.config.settings import ACCESS_LOG, DEFAULT, FILE, HEALTH, RETRY, SET, TIMEOUTS
from router.config.yaml_nodes import ConfigError, Field, Mistake, Node, NodeReader
from router.config.yaml_text import root_of
from router.routing.log_policy import AccessLogPolicy, is_target
from router.routing.policies import HealthPolicy, RetryPolicy
from router.routing.table import KeyPart, KeySource, Rule, SetEntry, SetState, Table, Weights
from router.routing.timeouts import Timeouts

__all__ = ["MAX_FILE_BYTES", "ConfigError", "Loaded", "Mistake", "load", "parse_url"]

MAX_FILE_BYTES: Final = 1024 * 1024
_HOST: Final = re.compile(
    r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?"
)  # Docker's names may have underscores.
_SERVICE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SET_NAME: Final = re.compile(r"[a-z0-9]{1,31}")

Default = tuple[tuple[KeyPart, ...], Weights]
_NO_SETS: Final[dict[str, SetEntry]] = {}
_NO_DEFAULT: Final[Default] = ((), Weights({}, {}))
_NO_RULES: Final[tuple[Rule, ...]] = ()
_USUAL_KEY: Final[tuple[KeyPart, ...]] = (KeyPart(KeySource.HEADER, b"x-user-id"),)


class Loaded(msgspec.Struct, frozen=True):
    """A file that holds no mistake."""

    table: Table

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings for operators; computed at each call."""
        return doubts(self.table)


def load(text: bytes, *, set_urls: Mapping[str, str] | None = None) -> Loaded:
    """Read the file's bytes. `set_urls` replaces the URL of sets by name. Raises `ConfigError` with every
    mistake found."""
    return _Reader(set_urls or {}).read(text)


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
    if port == 0:
        raise ValueError(f"{url!r} must have a port from 1 to 65535; {example}")
    if not parts.hostname or parts.username is not None or parts.password is not None:
        raise ValueError(f"{url!r} must name a host, and no user; {example}")
    if not _is_host(parts.hostname):
        raise ValueError(f"{url!r} names no host: letters, digits, dots and hyphens; {example}")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"{url!r} must end after the port; {example}")
    return parts.hostname, port if port is not None else 80


def _is_host(host: str) -> bool:
    if ":" not in host:
        return _HOST.fullmatch(host) is not None
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


class _Reader:
    """Reads one file; `nodes` notes its mistakes."""

    def __init__(self, set_urls: Mapping[str, str]) -> None:
        self.nodes = NodeReader()
        self.set_urls = set_urls

    # The file.

    def read(self, text: bytes) -> Loaded:
        if len(text) > MAX_FILE_BYTES:
            raise ConfigError([Mistake(1, 1, f"the file is larger than {MAX_FILE_BYTES // 1024} KiB")])
        root = root_of(text)
        if root is None:
            raise ConfigError([Mistake(1, 1, "the file is empty; it needs `version`, `sets` and `default`")])
        try:
            table = self._file(root, hashlib.sha256(text).hexdigest())
        except RecursionError:
            raise ConfigError([Mistake(1, 1, "the file is nested too deeply")]) from None
        if self.nodes.mistakes or table is None:
            raise ConfigError(self.nodes.mistakes or [Mistake(1, 1, "the file must be a mapping")])
        return Loaded(table)

    def _file(self, root: Node, digest: str) -> Table | None:
        fields = self.nodes.mapping(root, "the file", FILE.names, required=("version", "sets", "default"))
        version = self.nodes.setting(fields, FILE["version"], 0)
        by, why = self.nodes.optional(fields, "change", self._change, ("", ""))
        token_file = self._token_file(fields, "`operator_token_file`")
        sets = self.nodes.optional(fields, "sets", lambda n: self._sets(n, token_file), _NO_SETS)
        for name in set(self.set_urls) - set(sets):
            if "sets" in fields:
                self.nodes.wrong(
                    fields["sets"].key,
                    f"--set-url names set {name!r}, which is not among the sets; add it here",
                )
        key_parts, default = self.nodes.optional(
            fields, "default", lambda n: self._default(n, sets), _NO_DEFAULT
        )
        rules = self.nodes.optional(fields, "rules", lambda n: read_rules(self.nodes, n, sets), _NO_RULES)
        health = self.nodes.optional(fields, "health", self._health, HealthPolicy())
        retry = self.nodes.optional(fields, "retry", self._retry, RetryPolicy())
        timeouts = self.nodes.optional(fields, "timeouts", self._timeouts, Timeouts())
        access_log = self.nodes.optional(fields, "access_log", self._access_log, AccessLogPolicy())
        rollout = self.nodes.optional(fields, "rollout", lambda n: read_rollout(self.nodes, n, sets), None)
        discovery = self.nodes.optional(fields, "discovery", lambda n: read_discovery(self.nodes, n), None)
        if "discovery" not in fields and "sets" in fields:
            for name in (name for name, entry in sets.items() if entry.service):
                self.nodes.wrong(
                    fields["sets"].value,
                    f"set {name!r} names a service, and the file says of no registry where; "
                    'add discovery: {consul: "http://127.0.0.1:8500"}',
                )
        if self.nodes.mistakes:
            return None
        return Table(
            version=version,
            sets=sets,
            default=default,
            rules=rules,
            key_parts=key_parts,
            health=health,
            retry=retry,
            timeouts=timeouts,
            access_log=access_log,
            rollout=rollout,
            discovery=discovery,
            changed_by=by,
            changed_why=why,
            digest=digest,
        )

    def _change(self, node: Node) -> tuple[str, str]:
        fields = self.nodes.mapping(node, "`change`", ("by", "why"))
        by = self.nodes.optional(fields, "by", lambda n: self.nodes.text(n, "`by`", "by: ops"), "")
        why = self.nodes.optional(
            fields, "why", lambda n: self.nodes.text(n, "`why`", 'why: "ramp b to 5 %"'), ""
        )
        return by, why

    def _sets(self, node: Node, token_file: str | None) -> dict[str, SetEntry]:
        sets: dict[str, SetEntry] = {}
        fields = self.nodes.mapping(node, "`sets`", None)
        if isinstance(node, yaml.MappingNode) and not node.value:
            self.nodes.wrong(node, '`sets` is empty; write a: {url: "http://127.0.0.1:8101"}')
        for name, entry in fields.items():
            if not _SET_NAME.fullmatch(name):
                self.nodes.wrong(
                    entry.key,
                    f"a set's name is 1 to 31 small letters and digits (ids begin with it), not {name!r}",
                )
            sets[name] = self._set(name, entry.value, token_file)
        return sets

    def _token_file(self, fields: Mapping[str, Field], what: str) -> str | None:
        example = FILE["operator_token_file"].line
        if "operator_token_file" not in fields:
            return None
        node = fields["operator_token_file"].value
        path = self.nodes.text(node, what, example)
        if path is not None and not (path.startswith("/") and path.isprintable()):
            self.nodes.wrong(
                node, f"{what} must be the absolute path of a file that holds the token; write {example}"
            )
        return path

    def _set(self, name: str, node: Node, token_file: str | None) -> SetEntry:
        what = f"set {name!r}"
        fields = self.nodes.mapping(node, what, SET.names)
        # The mistake is reported; that other fields name this set is no further mistake.
        unknown = SetEntry(name, "unknown", 1)
        if "url" not in fields and "service" not in fields:
            self.nodes.wrong(
                node, f"{what} lacks 'url'; add `url: …`, or `service: …` to find it in a registry"
            )
            return unknown
        service = self.nodes.optional(fields, "service", lambda n: self._service(n, what), "")
        # While nobody has told a service's address, the set has none.
        address: tuple[str, int] | None = ("", 0) if "service" in fields else None
        if "url" in fields:
            url = self.nodes.text(fields["url"].value, f"the url of {what}", 'url: "http://127.0.0.1:8101"')
            address = None
            if url is not None:
                try:
                    address = parse_url(url)
                except ValueError as error:
                    self.nodes.wrong(fields["url"].value, f"the url of {what}: {error}")
        if name in self.set_urls:
            service = ""
            try:
                address = parse_url(self.set_urls[name])
            except ValueError as error:
                self.nodes.wrong(node, f"--set-url of {what}: {error}")
        state = self.nodes.optional(
            fields, "state", lambda n: self.nodes.one_of(n, f"the state of {what}", SetState), "ready"
        )
        inflight = self.nodes.setting(fields, SET["max_inflight"], None, f"max_inflight of {what}")
        if address is None:
            return unknown
        own_file = self._token_file(fields, f"the operator_token_file of {what}")
        return SetEntry(
            name, address[0], address[1], SetState(state), inflight, own_file or token_file, service
        )

    def _service(self, node: Node, what: str) -> str | None:
        name = self.nodes.text(node, f"the service of {what}", SET["service"].line)
        if name is not None and not _SERVICE.fullmatch(name):
            self.nodes.wrong(
                node,
                f"the service of {what} is 1 to 128 letters, digits, dots, - and _, not {name!r}; "
                f"write {SET['service'].line}",
            )
        return name

    def _default(
        self, node: Node, sets: Mapping[str, SetEntry]
    ) -> tuple[tuple[KeyPart, ...], Weights] | None:
        fields = self.nodes.mapping(node, "`default`", DEFAULT.names, required=("weights",))
        parts = self.nodes.optional(fields, "key", self._key, _USUAL_KEY)
        if "weights" not in fields:
            return None
        weights = read_weights(self.nodes, fields["weights"].value, "the weights of `default`", sets)
        return None if weights is None else (parts, weights)

    def _key(self, node: Node) -> tuple[KeyPart, ...]:
        example = 'key: ["header:x-user-id"]'
        parts = []
        for item in self.nodes.items(node, "`key`", example):
            text = self.nodes.text(item, "a key", example)
            if text is None:
                continue
            if text in ("account", "image", "client"):
                parts.append(KeyPart(KeySource(text)))
            elif text.startswith("header:") and HEADER_NAME.fullmatch(text[7:]):
                parts.append(KeyPart(KeySource.HEADER, text[7:].lower().encode()))
            else:
                self.nodes.wrong(
                    item, f"a key is header:NAME, account, image or client, not {text!r}; write {example}"
                )
        return tuple(parts)

    def _health(self, node: Node) -> HealthPolicy:
        usual = HealthPolicy()
        fields = self.nodes.mapping(node, "`health`", HEALTH.names)
        path = self.nodes.optional(
            fields, "path", lambda n: self.nodes.text(n, "path", "path: /readyz"), usual.path
        )
        if not re.fullmatch(r"/[\x21\x22\x24-\x7e]*", path):
            self.nodes.wrong(fields["path"].value, "path must begin with '/'; write path: /readyz")
        interval = self.nodes.setting(fields, HEALTH["interval"], usual.interval_s)
        timeout = self.nodes.setting(fields, HEALTH["timeout"], usual.timeout_s)
        fall = self.nodes.setting(fields, HEALTH["fall"], usual.fall)
        rise = self.nodes.setting(fields, HEALTH["rise"], usual.rise)
        slow_start = self.nodes.setting(fields, HEALTH["slow_start"], usual.slow_start_s)
        eject_after = self.nodes.setting(fields, HEALTH["eject_after"], usual.eject_after)
        eject_s = self.nodes.setting(fields, HEALTH["eject_for"], usual.eject_s)
        eject_max_s = self.nodes.setting(fields, HEALTH["eject_max"], usual.eject_max_s)
        if eject_max_s < eject_s:
            given = fields.get("eject_max") or fields["eject_for"]
            self.nodes.wrong(
                given.value,
                f"eject_max ({eject_max_s:g} s) must not be below eject_for ({eject_s:g} s); "
                "write {eject_for: 30s, eject_max: 5m}",
            )
        return HealthPolicy(
            path, interval, fall, rise, timeout, slow_start, eject_after, eject_s, eject_max_s
        )

    def _retry(self, node: Node) -> RetryPolicy:
        usual = RetryPolicy()
        fields = self.nodes.mapping(node, "`retry`", RETRY.names)
        return RetryPolicy(
            self.nodes.setting(fields, RETRY["attempts"], usual.attempts),
            self.nodes.setting(fields, RETRY["budget"], usual.budget),
            self.nodes.setting(fields, RETRY["replay_body_max"], usual.replay_body_max_bytes),
            self.nodes.setting(fields, RETRY["retry_sync"], usual.retry_sync),
            self.nodes.setting(fields, RETRY["patience"], usual.patience_s),
        )

    def _timeouts(self, node: Node) -> Timeouts:
        fields = self.nodes.mapping(node, "`timeouts`", TIMEOUTS.names)
        given = {name: self.nodes.setting(fields, TIMEOUTS[name], math.nan) for name in fields}
        return Timeouts({name: value for name, value in given.items() if not math.isnan(value)})

    def _access_log(self, node: Node) -> AccessLogPolicy:
        usual = AccessLogPolicy()
        example = ACCESS_LOG["to"].line
        fields = self.nodes.mapping(node, "`access_log`", ACCESS_LOG.names, required=("to",))
        to = self.nodes.optional(fields, "to", lambda n: self.nodes.text(n, "to", example), usual.to)
        if not is_target(to):
            self.nodes.wrong(
                fields["to"].value, f"to is stderr, off or an absolute path, not {to!r}; write {example}"
            )
        sample = self.nodes.setting(fields, ACCESS_LOG["sample"], usual.sample)
        errors = self.nodes.setting(fields, ACCESS_LOG["errors_per_s"], usual.errors_per_s)
        return AccessLogPolicy(to, sample, errors)
