"""Each setting of the operators' file, described once: name, kind, bounds, default, meaning. Pure data.

`reader.py` and `rollout_section.py` take names, bounds and examples from here; `python -m ops.docs` writes
router/docs/settings.md from it, and a test compares the defaults with those of the policies.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

DAY_S: Final = 86400.0
KIB: Final = 1024


class Kind(enum.StrEnum):
    """How a value is written."""

    TEXT = "text"
    WHOLE = "whole number"
    DURATION = "time with its unit (ms, s, m, h)"
    PERCENT = "percentage"
    SIZE = "size in B, KiB or MiB"
    TRUTH = "true or false"
    OTHER = "see meaning"


class Setting(msgspec.Struct, frozen=True):
    """`default` and `example` as they are written in the file; a default is also an example. `least` and `most` in
    seconds, bytes or as plain numbers. A default of "" means: the setting is required, or absent by default."""

    name: str
    kind: Kind
    meaning: str
    default: str = ""
    least: float = 0
    most: float = 0
    example: str = ""
    required: bool = False

    @property
    def line(self) -> str:
        """How the setting is written, for messages."""
        return f"{self.name}: {self.example or self.default}"


class Section(msgspec.Struct, frozen=True):
    """`where`: how the section is written in the file."""

    where: str
    meaning: str
    settings: tuple[Setting, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(each.name for each in self.settings)

    def __getitem__(self, name: str) -> Setting:
        return next(each for each in self.settings if each.name == name)


FILE: Final = Section(
    "",
    "The router reads the file again within half a second of a change. A file with mistakes changes nothing.",
    (
        Setting(
            "version",
            Kind.WHOLE,
            "Number of this version of the file. A change that does not raise it takes effect with a warning.",
            least=0,
            most=10**12 - 1,
            example="42",
            required=True,
        ),
        Setting("change", Kind.OTHER, "Who made this version (`by`), and why (`why`); shown in the history."),
        Setting(
            "operator_token_file",
            Kind.TEXT,
            "Absolute path of a file that holds the router's token at sets with authentication.",
            example="/etc/gcompute/router.token",
        ),
        Setting(
            "sets",
            Kind.OTHER,
            "The sets by name: 1 to 31 small letters and digits. The ids of a set's tasks begin with its "
            "name.",
            required=True,
        ),
        Setting(
            "rules",
            Kind.OTHER,
            "Rules, tried in order; the first one whose tests all hold decides instead of `default`.",
        ),
        Setting(
            "default", Kind.OTHER, "Weights and sticky keys of requests that no rule matches.", required=True
        ),
        Setting("health", Kind.OTHER, "How sets are checked, and when one is ejected."),
        Setting("retry", Kind.OTHER, "When a request may be sent again."),
        Setting("timeouts", Kind.OTHER, "Time limits of the data plane."),
        Setting("access_log", Kind.OTHER, "The access log, with one line for each request."),
        Setting(
            "discovery",
            Kind.OTHER,
            "The service registry in which sets with a `service` are found. One that is away or empty changes nothing: "
            "known addresses stay in force, also over a restart.",
        ),
        Setting("rollout", Kind.OTHER, "The automated release of one set; see [releasing.md](releasing.md)."),
    ),
)
SET: Final = Section(
    "sets: {NAME: …}",
    "One set.",
    (
        Setting(
            "url",
            Kind.TEXT,
            "Address of the set, like `http://127.0.0.1:8101`; TLS to sets is not supported. Required without "
            "`service`; with it, the address until the registry tells another.",
            example='"http://127.0.0.1:8101"',
        ),
        Setting(
            "service",
            Kind.TEXT,
            "Name of the set in the service registry of `discovery`. Its address is that of the instance registered "
            "last whose checks pass.",
            example="gc-set-a",
        ),
        Setting(
            "state",
            Kind.OTHER,
            "`ready`; `drain`: the set gets no new work, but its tasks still answer; `maint`: it gets "
            "nothing.",
            "ready",
        ),
        Setting(
            "max_inflight",
            Kind.WHOLE,
            "Most requests in flight at the set, over all workers of the router; reads and waits do not "
            "count. Without it: no bound.",
            least=1,
            most=1_000_000,
            example="500",
        ),
        Setting(
            "operator_token_file",
            Kind.TEXT,
            "The router's token at this set; by default that of the whole file.",
        ),
    ),
)
DISCOVERY: Final = Section(
    "discovery",
    "The service registry in which sets are found: exactly one of `consul` and `nomad`. Weights stay in this file.",
    (
        Setting(
            "consul",
            Kind.TEXT,
            "Address of a Consul agent. The token needs `service_prefix` and `node_prefix` read.",
            example='"http://127.0.0.1:8500"',
        ),
        Setting(
            "nomad",
            Kind.TEXT,
            'Address of a Nomad agent, for services that Nomad itself registers (`provider = "nomad"`). The token '
            "needs `read-job` in the namespace.",
            example='"https://127.0.0.1:4646"',
        ),
        Setting(
            "namespace", Kind.TEXT, "Namespace of the services; by default the registry's own.", example="gc"
        ),
        Setting(
            "token_file",
            Kind.TEXT,
            "Absolute path of a file that holds the token; it is read at each question, so it can be replaced.",
            example="/etc/gcompute/discovery.token",
        ),
        Setting(
            "ca_file",
            Kind.TEXT,
            "Absolute path of the certificates to trust for an `https` address; by default the usual authorities.",
            example="/etc/gcompute/discovery-ca.pem",
        ),
    ),
)
DEFAULT: Final = Section(
    "default",
    "Weights and sticky keys of requests that no rule matches.",
    (
        Setting(
            "weights",
            Kind.OTHER,
            "Percent by set, two decimals at most; the sum is 100.",
            example="{a: 95, b: 5}",
            required=True,
        ),
        Setting(
            "key",
            Kind.OTHER,
            "Where the sticky key comes from: a list of `header:NAME`, `account`, `image`, `client`. The "
            "first that a request has counts; a request with none goes anywhere.",
            '["header:x-user-id"]',
        ),
    ),
)
HEALTH: Final = Section(
    "health",
    "How sets are checked, and when one is ejected.",
    (
        Setting("path", Kind.TEXT, "Path of the check.", "/readyz"),
        Setting(
            "interval",
            Kind.DURATION,
            "Time between two checks of a set, give or take 15 %.",
            "2s",
            0.05,
            3600,
        ),
        Setting("timeout", Kind.DURATION, "Longest time that a check may take.", "2s", 0.05, 60),
        Setting("fall", Kind.WHOLE, "Failed checks in a row after which a set is down.", "3", 1, 100),
        Setting("rise", Kind.WHOLE, "Good checks in a row after which it is up again.", "2", 1, 100),
        Setting(
            "slow_start",
            Kind.DURATION,
            "Time in which a returning set's weight grows back from a tenth.",
            "10s",
            0,
            3600,
        ),
        Setting(
            "eject_after",
            Kind.WHOLE,
            "Failed requests in a row after which a set is ejected: it gets no new work for a while.",
            "5",
            1,
            1000,
        ),
        Setting(
            "eject_for",
            Kind.DURATION,
            "Length of an ejection, times the number of recent ones.",
            "30s",
            1,
            DAY_S,
        ),
        Setting("eject_max", Kind.DURATION, "Longest ejection.", "5m", 1, DAY_S),
    ),
)
RETRY: Final = Section(
    "retry",
    "When a request may be sent again.",
    (
        Setting("attempts", Kind.WHOLE, "Most attempts for one request, the first included.", "2", 1, 10),
        Setting(
            "budget",
            Kind.PERCENT,
            "Share of the requests in flight that may be retries; three always may.",
            "20%",
        ),
        Setting(
            "replay_body_max",
            Kind.SIZE,
            "Longest body, or beginning of one, that is kept to be sent again.",
            "64KiB",
            0,
            KIB * KIB,
        ),
        Setting(
            "retry_sync",
            Kind.TRUTH,
            "Repeat a synchronous run whose set was lost, though it may have run.",
            "true",
        ),
        Setting(
            "patience",
            Kind.DURATION,
            "Longest wait of a retry for room in the budget, where nothing can have run twice.",
            "1500ms",
            0,
            60,
        ),
    ),
)
SHORTEST_S: Final = 0.05
LONGEST_S: Final = 7 * DAY_S


def _wait(name: str, meaning: str, default: str) -> Setting:
    return Setting(name, Kind.DURATION, meaning, default, SHORTEST_S, LONGEST_S)


TIMEOUTS: Final = Section(
    "timeouts",
    "Time limits of the data plane. They are checked twice a second; a change counts at once, "
    "also for requests in work.",
    (
        _wait("connect", "Connecting to a set.", "3s"),
        _wait("header", "From a request's first byte to the end of its head.", "15s"),
        _wait("body_idle", "Without a byte of a request's body from the client.", "2m"),
        _wait(
            "first_byte",
            "From a request's last byte to the answer's first, where no task is waited for.",
            "60s",
        ),
        _wait("task_first_byte", "The same for a run, or a call with `wait`.", "16m"),
        _wait("answer_idle", "Without a byte of an answer that has begun.", "16m"),
        _wait("write_stall", "Without progress towards a peer that does not read.", "5m"),
        _wait("total", "A whole request.", "6h"),
        _wait("keep_alive", "Waiting for a client's next request on its connection.", "75s"),
        _wait("pool_idle", "Keeping an idle connection to a set.", "30s"),
    ),
)
ACCESS_LOG: Final = Section(
    "access_log",
    "The access log, with one line of JSON for each request.",
    (
        Setting(
            "to",
            Kind.TEXT,
            "Absolute path of a file, `stderr` or `off`.",
            "off",
            example='"/var/log/gcompute/access.jsonl"',
            required=True,
        ),
        Setting(
            "sample",
            Kind.PERCENT,
            "Share of the requests that went well; the others are all logged.",
            "100%",
            example="10%",
        ),
        Setting(
            "errors_per_s",
            Kind.WHOLE,
            "Most lines a second, in each worker, of requests that did not go well.",
            "100",
            1,
            100_000,
        ),
    ),
)
RULE: Final = Section(
    "rules: [{…}]",
    "One rule. It needs either `to` or `weights`.",
    (
        Setting("name", Kind.TEXT, "Name of the rule, in logs and metrics.", example="qa", required=True),
        Setting(
            "when",
            Kind.OTHER,
            "Tests that must all hold; see below.",
            example="{header: {x-canary: b}}",
            required=True,
        ),
        Setting("to", Kind.TEXT, "The set that gets the requests.", example="b"),
        Setting("weights", Kind.OTHER, "Percent by set, as in `default`."),
        Setting(
            "if_down",
            Kind.OTHER,
            "If none of the rule's sets is healthy: `default` uses the default weights; `fail` answers 503.",
            "default",
        ),
    ),
)
WHEN: Final = Section(
    "rules: [{when: {…}}]",
    "Tests of a request. Each is a text, or one of `{prefix: …}`, `{in: […]}`, `{regex: …}`.",
    (
        Setting("header", Kind.OTHER, "Headers by name, each with a test of its value."),
        Setting("account", Kind.OTHER, "The account."),
        Setting("image", Kind.OTHER, "The image that is run."),
        Setting("path", Kind.OTHER, "The path, without the query."),
        Setting("method", Kind.OTHER, "The method."),
    ),
)
