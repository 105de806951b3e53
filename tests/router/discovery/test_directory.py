"""Conversations: the registry tells this, and the service's address is that."""

from __future__ import annotations

import pytest

from router.config.reader import load
from router.discovery.directory import Directory, placed
from router.discovery.instances import Instance
from router.routing.table import SetEntry

OLD, NEW, OTHER = ("10.0.0.1", 8101), ("10.0.0.2", 8101), ("10.0.0.3", 8101)


def at(address: tuple[str, int], since: int = 1, *, passing: bool = True) -> Instance:
    return Instance(*address, since, passing)


@pytest.mark.parametrize(
    ("before", "told", "after"),
    [
        pytest.param(None, [], None, id="nothing known, nothing told"),
        pytest.param(None, [at(OLD)], OLD, id="found"),
        pytest.param(None, [at(OLD, 1), at(NEW, 2)], NEW, id="the newest of two"),
        pytest.param(
            None, [at(OLD, 1), at(NEW, 2, passing=False)], OLD, id="a passing one before a newer one"
        ),
        pytest.param(None, [at(NEW, passing=False)], NEW, id="one that starts and does not pass yet"),
        pytest.param(OLD, [], OLD, id="a registry that empties changes nothing"),
        pytest.param(OLD, [at(OLD)], OLD, id="the same"),
        pytest.param(OLD, [at(OLD, 1), at(NEW, 2)], OLD, id="it stays while it passes"),
        pytest.param(OLD, [at(OLD, passing=False)], OLD, id="it fails, and there is no other"),
        pytest.param(OLD, [at(OLD, passing=False), at(NEW)], NEW, id="it fails, and another passes"),
        pytest.param(OLD, [at(NEW)], NEW, id="it is gone, and another passes"),
        pytest.param(OLD, [at(NEW, passing=False)], OLD, id="it is gone, and the other does not pass yet"),
        pytest.param(
            OLD, [at(NEW, 3), at(OTHER, 4), at(OLD, 9, passing=False)], OTHER, id="the newest of those"
        ),
        pytest.param(None, [at(NEW, 2), at(OLD, 2)], NEW, id="equally new: the same for every worker"),
    ],
)
def test_the_address_of_a_service(
    before: tuple[str, int] | None, told: list[Instance], after: tuple[str, int] | None
) -> None:
    directory = Directory({} if before is None else {"s": before})
    assert directory.seen("s", told) == (after != before)
    assert directory.addresses.get("s") == after


def test_services_do_not_touch_each_other() -> None:
    directory = Directory({"s": OLD})
    assert directory.seen("t", [at(NEW)])
    assert directory.addresses == {"s": OLD, "t": NEW}


FILE = b"""
version: 1
discovery: {consul: "http://127.0.0.1:8500"}
sets:
  a: {service: gc-set-a}
  b: {service: gc-set-b, url: "http://10.0.0.9:8101"}
  c: {url: "http://10.0.0.8:8101"}
default: {weights: {a: 50, b: 25, c: 25}}
rules:
  - {name: r, when: {account: acme}, to: a}
"""


def test_the_table_has_the_addresses_everywhere() -> None:
    table = placed(load(FILE).table, {"gc-set-a": NEW})
    assert {name: (entry.host, entry.port) for name, entry in table.sets.items()} == {
        "a": NEW,
        "b": ("10.0.0.9", 8101),
        "c": ("10.0.0.8", 8101),
    }

    def only_a(entry: SetEntry) -> bool:
        return entry.name == "a"

    for weights in (table.default, table.rules[0].weights):
        found = weights.among(1, only_a)
        assert found is not None
        assert (found.host, found.port) == NEW
    assert table.default.shares == {"a": 5000, "b": 2500, "c": 2500}


def test_a_table_whose_addresses_are_right_is_left_alone() -> None:
    table = load(FILE).table
    assert placed(table, {}) is table
    assert placed(table, {"gc-set-b": ("10.0.0.9", 8101), "another": NEW}) is table


def test_a_set_whose_url_was_given_on_the_command_line_is_not_looked_up() -> None:
    table = load(FILE, set_urls={"a": "http://127.0.0.1:1"}).table
    assert table.sets["a"].service == ""
    assert placed(table, {"gc-set-a": NEW}) is table
