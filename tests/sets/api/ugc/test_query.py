"""The parameters of UGC's calls, as the four clients write them."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from sets.api.ugc.codes import RetCode, UgcError
from sets.api.ugc.query import UgcQuery


def refused(code: RetCode, field: str, call: object) -> None:
    assert callable(call)
    with pytest.raises(UgcError, match=f"^{field}") as caught:
        call()
    assert caught.value.code is code


def test_values_are_decoded_and_kept_in_the_order_sent() -> None:
    query = UgcQuery(b"B=1&A=a+b%20c&A=%E5%9B%BE&Empty=&Flag")
    assert query.pairs == [("B", "1"), ("A", "a b c"), ("A", "\u56fe"), ("Empty", ""), ("Flag", "")]
    assert query.all("A") == ["a b c", "\u56fe"]
    assert query.get("B") == "1"


def test_an_empty_value_is_an_absent_one() -> None:
    query = UgcQuery(b"Date=&Limit=&Region=")
    assert query.get("Date") is None
    assert query.whole_number("Limit", 20, 0, 100) == 20
    refused(RetCode.PARAMETER_MISSING, "Region: ", lambda: query.need("Region"))


@pytest.mark.parametrize("spelled", [b"TaskName=x", b"task_name=x"])
def test_both_spellings_of_a_name_count(spelled: bytes) -> None:
    assert UgcQuery(spelled).get("TaskName") == "x"
    assert UgcQuery(b"Timeout=5").get("TimeOut") == "5"


def test_a_parameter_that_is_given_twice_is_refused_where_one_is_meant() -> None:
    query = UgcQuery(b"TaskId=a&TaskId=b&task_name=x&TaskName=y")
    refused(RetCode.PARAMETER_WRONG, "TaskId: given more than once", lambda: query.get("TaskId"))
    refused(RetCode.PARAMETER_WRONG, "TaskName: given more than once", lambda: query.get("TaskName"))


@pytest.mark.parametrize("text", ["-1", "1.5", "x", "101", "9" * 30, "\u0663", "+1", " 1"])
def test_numbers_have_bounds(text: str) -> None:
    query = UgcQuery(f"Limit={quote(text)}".encode())
    refused(RetCode.PARAMETER_WRONG, "Limit: ", lambda: query.whole_number("Limit", 20, 0, 100))


def test_choices_are_read_in_any_case() -> None:
    choices = {"sync": "Sync", "async": "Async"}
    assert UgcQuery(b"TaskType=sync").choice("TaskType", choices, "Async") == "Sync"
    assert UgcQuery(b"TaskType=").choice("TaskType", choices, "Async") == "Async"
    wrong = UgcQuery(b"TaskType=later")
    refused(RetCode.PARAMETER_WRONG, "TaskType: ", lambda: wrong.choice("TaskType", choices, "Async"))


def test_numbered_parameters_come_in_the_order_of_their_numbers() -> None:
    assert UgcQuery(b"Tag.2=c&Tag.0=a&Tag.1=&Tag.10=k&Tag.x=z").numbered("Tag", 100) == ["a", "c", "k"]


def test_what_is_not_utf_8_and_what_is_too_much_is_refused() -> None:
    refused(RetCode.PARAMETER_WRONG, "Cmd: is not UTF-8", lambda: UgcQuery(b"Cmd=%ff"))
    refused(RetCode.PARAMETER_WRONG, "1001 parameters", lambda: UgcQuery(b"a=1&" * 1001))
