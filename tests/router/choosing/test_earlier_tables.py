"""Earlier tables: which homes they gave an idempotency key, for how long, and how many are remembered."""

from __future__ import annotations

from router.choosing.earlier_tables import IDEMPOTENCY_S, TABLES_AT_MOST, EarlierTables
from router.routing.table import Match, MatchKind, Rule, SetEntry, Table, Weights
from tests.router.routing.asked import Asked

SETS = {name: SetEntry(name, "h", 80) for name in "abc"}


def table(version: int = 1, *, rules: tuple[Rule, ...] = (), **shares: int) -> Table:
    return Table(version, SETS, Weights(SETS, shares), rules)


def test_the_latest_home_comes_first_and_each_once() -> None:
    earlier = EarlierTables()
    for moment, name in enumerate("abab"):
        earlier.adopt(Table(1, SETS, Weights(SETS, {name: 10_000})), float(moment))
    assert earlier.homes(Asked(), b"k") == ["a"]
    earlier.adopt(table(c=10_000), 9.0)
    assert earlier.homes(Asked(), b"k") == ["b", "a"]


def test_a_day_after_its_end_a_table_is_forgotten() -> None:
    earlier = EarlierTables()
    earlier.adopt(table(a=10_000), 0.0)
    earlier.adopt(table(b=10_000), 1000.0)  # a's ended here
    earlier.adopt(table(b=5000, c=5000), 999.0 + IDEMPOTENCY_S)
    assert earlier.homes(Asked(), b"k") == ["b", "a"]
    earlier.adopt(table(c=10_000), 1001.0 + IDEMPOTENCY_S)
    assert "a" not in earlier.homes(Asked(), b"k")


def test_changes_that_move_nobody_are_not_remembered() -> None:
    earlier = EarlierTables()
    for version in range(100):
        earlier.adopt(table(version, a=10_000), float(version))
    assert len(earlier) == 0


def test_it_is_bounded() -> None:
    earlier = EarlierTables()
    for share in range(100):
        earlier.adopt(table(a=10_000 - share, b=share), float(share))
    assert len(earlier) == TABLES_AT_MOST
    many = {f"s{number}": SetEntry(f"s{number}", "h", 80) for number in range(9000)}
    for share in range(5):
        shares = {"s0": 5000 - share, "s1": 5000 + share}
        earlier.adopt(Table(1, many, Weights(many, shares)), 200.0 + share)
    assert len(earlier) == 2


def test_rules_of_then_count() -> None:
    rule = Rule("r", Weights(SETS, {"c": 10_000}), account=Match(MatchKind.EXACT, "acme"))
    earlier = EarlierTables()
    earlier.adopt(table(a=10_000, rules=(rule,)), 0.0)
    earlier.adopt(table(a=10_000), 1.0)
    assert earlier.homes(Asked(account="acme"), b"k") == ["c"]
    assert earlier.homes(Asked(account="other"), b"k") == ["a"]


def test_what_was_before_a_restart_can_be_given_back() -> None:
    earlier = EarlierTables()
    earlier.adopt(table(c=10_000), 100.0)
    earlier.restore(
        [(50.0, table(a=10_000)), (90.0, table(b=10_000)), (-IDEMPOTENCY_S, table(a=1, b=9999))], 100.0
    )
    assert set(earlier.homes(Asked(), b"k")) == {"a", "b"}
