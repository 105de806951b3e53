"""Query strings: what is read is what was sent."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import BadRequest
from sets.api.query import decode_pairs

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.tuples(TEXT.filter(bool), TEXT)))
def test_pairs(pairs: list[tuple[str, str]]) -> None:
    assert decode_pairs(urlencode(pairs).encode()) == pairs


def test_a_value_that_is_not_utf_8_is_refused_by_name() -> None:
    with pytest.raises(BadRequest, match="not UTF-8") as caught:
        decode_pairs(b"arg=%ff")
    assert caught.value.field == "arg"
