"""Orders onto sets that are down: refused where nobody would be left to serve, by the health that the router sees."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.cli import exits
from tests.ops.cli.routers import Operator, routing
from tests.ports import free_port

FILE = """\
version: {version}
sets:
  a: {{url: "http://127.0.0.1:{up}"}}
  b: {{url: "http://127.0.0.1:{down}"}}
default: {{weights: {weights}}}
rollout: {{set: b, steps: [{{weight: 10, hold: 10m}}]}}
"""


@pytest.fixture
def half_down(tmp_path: Path) -> Iterator[Operator]:
    """A router whose set `a` answers and has all weight; nothing listens at the address of `b`."""
    with routing(tmp_path) as operator:
        up = operator.file.read_text().partition("127.0.0.1:")[2].partition('"')[0]
        down = free_port()
        for version, weights in ((8, "{a: 0, b: 100}"), (9, "{a: 100, b: 0}")):
            operator.file.write_text(FILE.format(version=version, up=up, down=down, weights=weights))
            wait_for(operator, lambda status, version=version: status["version"] == version)
        wait_for(operator, lambda status: status["sets"]["b"]["health"] == "down")
        yield operator


def wait_for(operator: Operator, true: object) -> None:
    assert callable(true)
    deadline = time.monotonic() + 30
    while not true(operator.json("status")):
        assert time.monotonic() < deadline, operator.json("status")
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("order", "why"),
    [
        (["set-weight", "b=100"], "the default weights: b is down"),
        (["drain", "a"], "the default weights: a is drain"),
        (["maint", "a"], "the default weights: a is maint"),
        (["rollback", "8"], "the default weights: b is down"),
    ],
)
def test_an_order_that_leaves_nobody_to_serve_is_refused(
    half_down: Operator, order: list[str], why: str
) -> None:
    before = half_down.file.read_text()
    refused = half_down.complaint(*order, code=exits.DATA)
    assert f"no set would take new requests of {why}" in refused
    assert "nothing was changed" in refused
    assert "--force" in refused
    assert half_down.file.read_text() == before
    done = half_down.run(*order, "--force")
    assert done.returncode == 0, done.stderr
    assert b"ATTENTION: no set would take new requests" in done.stderr
    assert half_down.file.read_text() != before


def test_a_part_for_a_set_that_is_down_is_given_with_a_word(half_down: Operator) -> None:
    done = half_down.run("set-weight", "b=30")
    assert done.returncode == 0, done.stderr
    assert b"ATTENTION: b is down: until it is up, the other sets take its share" in done.stderr
    # Taking a share away from the one that is down is no risk, and needs no word.
    done = half_down.run("set-weight", "b=0")
    assert done.returncode == 0
    assert b"ATTENTION" not in done.stderr


def test_a_rollout_onto_a_set_that_is_down_is_refused_and_plan_says_so(half_down: Operator) -> None:
    planned = half_down.run("rollout", "plan")
    assert planned.returncode == exits.TRY_AGAIN
    assert b"set 'b' takes no new requests: it is down" in planned.stdout + planned.stderr
    refused = half_down.complaint("rollout", "start", code=exits.TRY_AGAIN)
    assert "set 'b' takes no new requests: it is down" in refused
    assert half_down.json("rollout", "start", "--force")["phase"] == "holding"


def test_a_set_whose_address_changes_is_not_judged_by_the_old_one(half_down: Operator) -> None:
    up = half_down.file.read_text().partition("127.0.0.1:")[2].partition('"')[0]
    moved = FILE.format(version=10, up=free_port(), down=up, weights="{a: 100, b: 0}")
    half_down.file.write_text(moved)
    wait_for(half_down, lambda status: status["sets"]["a"]["health"] == "down")
    # Version 9 has `a` at the address that answers.
    assert half_down.run("rollback", "9").returncode == 0


def test_status_tells_build_cores_queue_and_saturation(half_down: Operator) -> None:
    done = half_down.run("status")
    heading, *rows = (line.split("\t") for line in done.stdout.decode().splitlines())
    a, b = (dict(zip(heading, row, strict=True)) for row in rows)
    assert (a["BUILD"], a["CORES"], a["QUEUED"]) == ("0.1.0+abc", "2/2", "10, 75.00 s")
    assert (b["BUILD"], b["CORES"], b["QUEUED"]) == ("–", "–", "–")
    assert b"a is saturated: 10 waiting, all its cores or slots are in use" in done.stderr
