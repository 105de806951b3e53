"""Answers of service registries, as real ones gave them (`recordings/`) and as nobody should."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from router.discovery.instances import (
    MAX_INSTANCES,
    AnswerBroken,
    Instance,
    instances,
    next_index,
    question,
    token_header,
)
from router.routing.discovery import Discovery, RegistryKind
from tests.router.discovery.registry import FakeRegistry

RECORDINGS = sorted((Path(__file__).parent / "recordings").glob("*.json"))
CONSUL = Discovery(RegistryKind.CONSUL, "http://127.0.0.1:8500")
NOMAD = Discovery(RegistryKind.NOMAD, "https://n:4646", namespace="gc")


def of_file(path: Path) -> Discovery:
    return CONSUL if path.name.startswith("consul") else NOMAD


def test_recordings_are_there() -> None:
    assert {path.name.partition("-")[0] for path in RECORDINGS} == {"consul", "nomad"}


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_what_real_registries_answered_is_understood(path: Path) -> None:
    discovery = of_file(path)
    recorded: dict[str, Any] = json.loads(path.read_text())
    index = 0
    for name, answer in recorded.items():
        found = instances(discovery, json.dumps(answer["body"]).encode())
        if name in ("unknown", "stopped"):
            assert found == ()
        else:
            assert [(each.host, each.port) for each in found] == [("127.0.0.1", 28101)]
            assert found[0].since > 0
            assert found[0].passing == (name != "failing")
        after = next_index(discovery, answer["headers"], index)
        assert after > index
        index = after


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_the_double_writes_what_real_registries_write(path: Path) -> None:
    """Every field of its entries is in a real one's, with the same type."""
    kind = path.name.partition("-")[0]
    real = json.loads(path.read_text())["registered"]["body"][0]
    _is_part_of(FakeRegistry(kind).instance("127.0.0.1", 28101), real)


def _is_part_of(part: Any, whole: Any) -> None:
    assert type(part) is type(whole)
    if isinstance(part, dict):
        for name, value in part.items():
            _is_part_of(value, whole[name])
    elif isinstance(part, list):
        for value in part:
            _is_part_of(value, whole[0])


def test_questions() -> None:
    assert question(CONSUL, "gc-set-a", 0) == "http://127.0.0.1:8500/v1/health/service/gc-set-a"
    assert question(CONSUL, "a/../b", 7) == (
        "http://127.0.0.1:8500/v1/health/service/a%2F..%2Fb?index=7&wait=30s"
    )
    assert question(NOMAD, "s", 7) == "https://n:4646/v1/service/s?index=7&wait=30s&namespace=gc"
    assert (token_header(CONSUL), token_header(NOMAD)) == ("X-Consul-Token", "X-Nomad-Token")


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [("7", 0, 7), ("7", 7, 7), ("6", 7, 0), ("", 7, 0), ("x", 7, 0), ("-1", 0, 0), ("9" * 30, 7, 0)],
)
def test_an_index_that_goes_back_begins_again(text: str, before: int, after: int) -> None:
    assert next_index(CONSUL, {"X-Consul-Index": text}, before) == after
    assert next_index(CONSUL, {}, before) == 0


def test_an_instance_of_consul_without_an_address_is_at_its_node() -> None:
    entry = {"Node": {"Address": "10.0.0.7"}, "Service": {"Address": "", "Port": 8101}, "Checks": []}
    assert instances(CONSUL, json.dumps([entry]).encode()) == (Instance("10.0.0.7", 8101),)


@pytest.mark.parametrize(
    ("checks", "passing"),
    [
        ([], True),
        (None, True),
        ([{"Status": "passing"}, {"Status": "warning"}], True),
        ([{"Status": "passing"}, {"Status": "critical"}], False),
        ([{"Status": "maintenance"}], False),
        ([{}], False),
        (["passing"], False),
    ],
)
def test_an_instance_of_consul_passes_when_all_its_checks_do(checks: object, passing: bool) -> None:
    entry = {"Service": {"Address": "::1", "Port": 1}, "Checks": checks}
    assert instances(CONSUL, json.dumps([entry]).encode()) == (Instance("::1", 1, 0, passing),)


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"Address": "10.0.0.1"},
        {"Address": "10.0.0.1", "Port": 0},
        {"Address": "10.0.0.1", "Port": -1},
        {"Address": "10.0.0.1", "Port": 65536},
        {"Address": "10.0.0.1", "Port": True},
        {"Address": "10.0.0.1", "Port": "8101"},
        {"Address": "", "Port": 8101},
        {"Address": 7, "Port": 8101},
        {"Address": "a b", "Port": 8101},
        {"Address": "a/b", "Port": 8101},
        {"Address": "user@a", "Port": 8101},
        {"Address": "a\r\nX: y", "Port": 8101},
        {"Address": "1:2:3", "Port": 8101},
    ],
)
def test_an_instance_without_a_usable_address_is_left_out(entry: dict[str, object]) -> None:
    good = {"Address": "10.0.0.2", "Port": 1}
    assert instances(NOMAD, json.dumps([entry, good]).encode()) == (Instance("10.0.0.2", 1),)
    consul = [{"Service": entry}, {"Service": good}, {"Service": 1}, {}]
    assert instances(CONSUL, json.dumps(consul).encode()) == (Instance("10.0.0.2", 1),)


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"null", b"[1]", b'"x"', b"[" * 100_000, b"\xff"])
def test_anything_else_is_no_answer(content: bytes) -> None:
    with pytest.raises(AnswerBroken):
        instances(CONSUL, content)
    with pytest.raises(AnswerBroken, match="at most"):
        instances(CONSUL, json.dumps([{}] * (MAX_INSTANCES + 1)).encode())
