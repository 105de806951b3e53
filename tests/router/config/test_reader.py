"""The operators' file: what is taken, and that whatever is in it ends in a table or in mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields

from router.config.reader import ConfigError, load, parse_url
from router.routing.discovery import Discovery, RegistryKind
from router.routing.policies import HealthPolicy, RetryPolicy
from router.routing.table import IfDown, KeySource, MatchKind, SetState
from router.routing.timeouts import NAMES
from router.wire.limits import Limits

FULL = b"""
version: 42
change: {by: ops, why: "ramp b to 5 %"}
operator_token_file: /etc/gcompute/router.token
sets:
  a: {url: "http://127.0.0.1:8101", state: ready, operator_token_file: /etc/gcompute/a.token}
  b: {url: "http://[::1]:8102", state: drain, max_inflight: 500}
rules:
  - {name: qa, when: {header: {x-canary: b}}, to: b, if_down: fail}
  - {name: early, when: {account: {in: [acme]}, image: {prefix: "ocr/"}}, weights: {a: 50, b: 50}}
  - {name: odd, when: {path: {regex: "/v1/.*"}, method: POST}, to: a}
default:
  key: ["header:X-User-Id", account]
  weights: {a: 94.75, b: 5.25}
health: {path: /readyz, interval: 500ms, fall: 4, rise: 1, timeout: 1s, slow_start: 30s,
  eject_after: 7, eject_for: 10s, eject_max: 1m}
timeouts: {connect: 2s, first_byte: 310s, answer_idle: 5m, total: 1h}
retry: {attempts: 3, budget: 12.5%, replay_body_max: 128KiB, retry_sync: false, patience: 0s}
rollout:
  set: b
  steps: [{weight: 1, hold: 10m}, {weight: 10, hold: 30m}, {pause: true}, {weight: 50, hold: 1h}]
  abort_when: {min_requests: 100, error_rate_over_baseline: 2%, p95_over_baseline: 25%}
  on_no_data: pause
"""


def test_every_key_is_read() -> None:
    loaded = load(FULL)
    table = loaded.table
    assert (table.version, table.changed_by, table.changed_why) == (42, "ops", "ramp b to 5 %")
    b = table.sets["b"]
    assert (b.host, b.port, b.state, b.max_inflight, b.url) == (
        "::1",
        8102,
        SetState.DRAIN,
        500,
        "http://[::1]:8102",
    )
    assert b.operator_token_file == "/etc/gcompute/router.token"
    assert table.sets["a"].operator_token_file == "/etc/gcompute/a.token"
    assert table.default.shares == {"a": 9475, "b": 525}
    assert [part.source for part in table.key_parts] == [KeySource.HEADER, KeySource.ACCOUNT]
    assert table.key_parts[0].header == b"x-user-id"
    qa, early, odd = table.rules
    assert (qa.if_down, qa.weights.shares) == (IfDown.FAIL, {"b": 10_000})
    assert early.account is not None
    assert (early.account.kind, set(early.account.texts)) == (MatchKind.IN, {"acme"})
    assert odd.path is not None
    assert odd.path("/v1/x")
    assert not odd.path("/v2/x")
    health, retry = table.health, table.retry
    assert (health.interval_s, health.fall, health.rise, health.timeout_s) == (0.5, 4, 1, 1.0)
    assert (health.slow_start_s, health.eject_after, health.eject_s, health.eject_max_s) == (30, 7, 10, 60)
    assert retry.patience_s == 0.0
    limits = Limits(body_idle_s=7.0).with_times(table.timeouts.given_s)
    assert (limits.connect_s, limits.first_byte_s, limits.answer_idle_s, limits.total_s) == (
        2.0,
        310.0,
        300.0,
        3600.0,
    )
    assert (limits.body_idle_s, limits.header_s) == (7.0, Limits().header_s)
    assert (retry.attempts, retry.budget, retry.replay_body_max_bytes, retry.retry_sync) == (
        3,
        0.125,
        131072,
        False,
    )
    assert table.rollout is not None
    assert table.rollout.set == "b"


SETS = 'sets: {a: {url: "http://h:1"}, b: {url: "http://h:2"}}'


@pytest.mark.parametrize("name", NAMES)
def test_every_time_out_of_the_file_is_one_of_the_wires(name: str) -> None:
    text = f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\ntimeouts: {{{name}: 1234ms}}"
    limits = Limits().with_times(load(text.encode()).table.timeouts.given_s)
    assert getattr(limits, f"{name}_s") == 1.234


def test_a_set_url_of_the_command_line_replaces_the_files() -> None:
    loaded = load(FULL, set_urls={"a": "http://10.0.0.1:9000"})
    assert (loaded.table.sets["a"].host, loaded.table.sets["a"].port) == ("10.0.0.1", 9000)
    with pytest.raises(ConfigError, match="names set 'z'"):
        load(FULL, set_urls={"z": "http://10.0.0.1:9000"})
    with pytest.raises(ConfigError, match="--set-url of set 'a'"):
        load(FULL, set_urls={"a": "nonsense"})


def test_aliases_cannot_blow_the_file_up() -> None:
    lines = ["version: 1", "x0: &x0 {a: 1}"]
    lines += [f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(ConfigError):
        load("\n".join(lines).encode())


@pytest.mark.parametrize(
    "text",
    [b"\xff\xfe", b"\0", b"a: " + b"[" * 5000, b"version: 1\n" * 200_000, b"!!python/object:os.system {}"],
)
def test_garbage_is_a_mistake_and_no_crash(text: bytes) -> None:
    with pytest.raises(ConfigError):
        load(text)


def test_nesting_without_end_is_a_mistake_too() -> None:
    text = f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nrollout: " + "[" * 900 + "]" * 900
    with pytest.raises(ConfigError):
        load(text.encode())


def test_a_list_that_is_named_again_and_again_counts_each_time() -> None:
    items = ", ".join(f"x{number}" for number in range(40_000))
    text = f"version: 1\n{SETS}\ndefault: {{weights: {{a: 100}}}}\nrules:\n"
    text += f"- {{name: r, when: {{account: {{in: &l [{items}]}}}}, to: a}}\n"
    assert len(load(text.encode()).table.rules) == 1
    text += "".join(f"- {{name: r{i}, when: {{account: {{in: *l}}}}, to: a}}\n" for i in range(200))
    with pytest.raises(ConfigError, match=r"line 5, column .* over and over by an alias") as caught:
        load(text.encode())
    assert len(caught.value.mistakes) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://h:0",
        "http://a b:1",
        "http://h_:0",
        "http://-h:1",
        "http://h!:1",
        "http://[::x]:1",
        "http://é:1",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(f'version: 1\nsets: {{a: {{url: "{url}"}}}}\ndefault: {{weights: {{a: 100}}}}'.encode())
    # That `default` names the set is no second mistake.
    (mistake,) = caught.value.mistakes
    assert (mistake.line, mistake.column) == (2, 17)


@pytest.mark.parametrize(
    "host", ["h", "a-b.c.example.", "set_a", "127.0.0.1", "[::1]", "[fe80::1%eth0]", "x1", "H"]
)
def test_addresses(host: str) -> None:
    assert parse_url(f"http://{host}:8101") == (host.strip("[]").lower(), 8101)


def test_the_file_in_the_operators_page_is_good_and_tells_the_defaults() -> None:
    page = (Path(__file__).resolve().parents[3] / "router/docs/operating.md").read_text()
    table = load(page.partition("```yaml\n")[2].partition("```")[0].encode()).table
    assert Limits(header_s=1.0).with_times(table.timeouts.given_s) == Limits()
    assert set(table.timeouts.given_s) == set(NAMES)
    assert (table.health, table.retry) == (HealthPolicy(), RetryPolicy())
    for section, policy in (("health", HealthPolicy), ("retry", RetryPolicy)):
        line = page.partition(f"\n{section}: {{")[2].partition("\n")[0]
        assert line.count(": ") == len(fields(policy)), "a default is not told"


@given(st.text(alphabet="versionsetdfaulwgh:{}[],-\n 0123456789.%\"'&*ab", max_size=200))
def test_whatever_is_written_ends_in_a_table_or_in_mistakes(text: str) -> None:
    try:
        load(text.encode())
    except ConfigError as error:
        mistakes = error.mistakes
    else:
        return
    assert mistakes


@given(st.text(max_size=60))
def test_no_url_crashes(url: str) -> None:
    try:
        host, port = parse_url(url)
    except ValueError:
        return
    assert host
    assert 0 <= port < 65536


FOUND = """
version: 1
discovery: {nomad: "https://n.example:4646/", namespace: gc, token_file: /etc/t, ca_file: /etc/ca}
sets: {a: {service: gc-set-a}, b: {service: gc-set-b, url: "http://h:1"}}
default: {weights: {a: 100}}
"""


def test_sets_that_are_found_in_a_registry() -> None:
    table = load(FOUND.encode()).table
    assert table.discovery == Discovery(
        RegistryKind.NOMAD, "https://n.example:4646", "gc", "/etc/t", "/etc/ca"
    )
    assert [(entry.service, entry.url) for entry in table.sets.values()] == [
        ("gc-set-a", ""),
        ("gc-set-b", "http://h:1"),
    ]
    assert load(FOUND.encode()).warnings == ()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("nomad:", "etcd:", "unknown key 'etcd' in `discovery`"),
        ("nomad:", "consul: 'http://h:1', nomad:", "must name one registry, consul or nomad"),
        ('nomad: "https://n.example:4646/", ', "", "must name one registry, consul or nomad"),
        ("https://n.example:4646/", "n.example:4646", "must be http:// or https://"),
        ("https://n.example:4646/", "https://u:p@n.example", "must end after the port, and name no user"),
        ("https://n.example:4646/", "https://n.example/v1", "must end after the port"),
        ("https://n.example:4646/", "https://n.example:x", "is no URL"),
        ("/etc/t,", "etc/t,", "`token_file` is an absolute path; write token_file:"),
        ("/etc/ca", "ca.pem", "`ca_file` is an absolute path; write ca_file:"),
        ("{service: gc-set-a}", "{service: 'gc set'}", "the service of set 'a' is 1 to 128 letters"),
        ("{service: gc-set-a}", "{service: [x]}", "the service of set 'a' must be a text"),
        ("{service: gc-set-a}", "{state: ready}", "set 'a' lacks 'url'; add `url: …`, or `service: …`"),
        (
            "discovery:",
            "change: {by: x}\n#",
            "set 'a' names a service, and the file says of no registry where",
        ),
    ],
)
def test_mistakes_about_the_registry(old: str, new: str, said: str) -> None:
    assert old in FOUND
    with pytest.raises(ConfigError) as caught:
        load(FOUND.replace(old, new, 1).encode())
    assert said in str(caught.value)
