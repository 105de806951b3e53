"""The moves of a client's connection: a table, and nothing beside it."""

from __future__ import annotations

import ast
import inspect

import pytest

from router.wire import downstream
from router.wire.client_states import LEGAL_MOVES, IllegalMove, State, check

ILLEGAL = [(before, after) for before in State for after in State if after not in LEGAL_MOVES[before]]


@pytest.mark.parametrize(("before", "after"), ILLEGAL)
def test_a_move_that_is_not_in_the_table_raises(before: State, after: State) -> None:
    with pytest.raises(IllegalMove, match=f"from {before.name} to {after.name}"):
        check(before, after)


def test_a_move_of_the_table_is_made() -> None:
    for before, moves in LEGAL_MOVES.items():
        assert [check(before, after) for after in moves] == list(moves)


def test_every_state_but_the_first_can_be_reached() -> None:
    reached = {State.HEAD}
    while fresh := {after for before in reached for after in LEGAL_MOVES[before]} - reached:
        reached |= fresh
    assert reached == set(State)


def test_the_connection_moves_by_the_table_alone() -> None:
    """Every assignment to its state, but the first, goes through `check`."""
    moves = [
        ast.unparse(node)
        for node in ast.walk(ast.parse(inspect.getsource(downstream)))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "self._state"
    ]
    assert len(moves) >= 6
    assert [move for move in moves if not move.startswith("self._state = check(self._state, ")] == []
