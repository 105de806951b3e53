"""UGC's signature: the documents' example, and each form that the four clients send."""

from __future__ import annotations

import pytest

from sets.api.ugc.signature import Pairs, is_signed, sign

PRIVATE = "46f09bb9fab4f12dfc160dae12273d5332b5debe"
EXAMPLE = [
    ("Action", "DescribeUHostInstance"),
    ("Limit", "10"),
    ("Region", "cn-bj2"),
    ("PublicKey", "ucloudsomeone@example.com1296235120854146120"),
]
SIGNATURE = "cba5cf5ec4d4233d206b1b54951e3787350a642f"


@pytest.mark.parametrize("order", [EXAMPLE, EXAMPLE[::-1], [*EXAMPLE[2:], *EXAMPLE[:2]]])
def test_the_documents_example_in_any_order(order: Pairs) -> None:
    assert sign(order, PRIVATE) == SIGNATURE
    signed = [*order, ("Signature", SIGNATURE)]
    assert is_signed(signed, PRIVATE, SIGNATURE)
    assert is_signed(signed, PRIVATE, SIGNATURE.upper())


@pytest.mark.parametrize("changed", range(len(EXAMPLE)))
def test_each_parameter_counts(changed: int) -> None:
    name, value = EXAMPLE[changed]
    for other in ((name, value + "x"), (name + "x", value)):
        pairs = [*EXAMPLE[:changed], other, *EXAMPLE[changed + 1 :]]
        assert not is_signed(pairs, PRIVATE, SIGNATURE)
    assert not is_signed([*EXAMPLE, ("Extra", "1")], PRIVATE, SIGNATURE)
    assert not is_signed(EXAMPLE, PRIVATE[:-1], SIGNATURE)


@pytest.mark.parametrize("given", ["", "0" * 40, SIGNATURE[:-1], SIGNATURE + "0", "é"])
def test_what_is_no_signature(given: str) -> None:
    assert not is_signed(EXAMPLE, PRIVATE, given)


def test_a_repeated_parameter_contributes_each_value_in_the_order_sent() -> None:
    pairs = [("OutputFileName", "b"), ("Action", "x"), ("OutputFileName", "a")]
    assert sign(pairs, PRIVATE) == sign(
        [("Action", "x"), ("OutputFileName", "b"), ("OutputFileName", "a")], PRIVATE
    )
    assert sign(pairs, PRIVATE) != sign(
        [("Action", "x"), ("OutputFileName", "a"), ("OutputFileName", "b")], PRIVATE
    )


def test_date_may_be_added_after_signing_or_before() -> None:
    """Go, Java and C++ add it afterwards, Python signs it."""
    listed = [("Action", "GetTaskList"), ("Region", "cn-bj2")]
    dated = [*listed, ("Date", "2026-01-31")]
    assert is_signed(dated, PRIVATE, sign(listed, PRIVATE))
    assert is_signed(dated, PRIVATE, sign(dated, PRIVATE))
    # Go and C++ send it empty where it is not set.
    assert is_signed([*listed, ("Date", "")], PRIVATE, sign(listed, PRIVATE))
    assert not is_signed([*dated, ("Limit", "1")], PRIVATE, sign(listed, PRIVATE))


def test_empty_parameters_may_be_signed_or_not() -> None:
    sent = [("Action", "x"), ("TaskName", ""), ("Region", "cn-bj2")]
    assert is_signed(sent, PRIVATE, sign(sent, PRIVATE))
    assert is_signed(sent, PRIVATE, sign([sent[0], sent[2]], PRIVATE))


def test_text_outside_ascii_is_signed_as_utf_8() -> None:
    pairs = [("Action", "x"), ("TaskName", "图片 é")]
    assert (
        sign(pairs, PRIVATE)
        == sign(list(pairs), PRIVATE)
        != sign([("Action", "x"), ("TaskName", "? ?")], PRIVATE)
    )
