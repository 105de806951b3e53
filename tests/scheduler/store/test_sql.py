"""Queries in files: each named once and described."""

from __future__ import annotations

import pytest

from scheduler.store.sql import for_rows, parse, queries, schemas


def test_reads_names_and_statements() -> None:
    head = "-- The head.\n\n"
    text = (
        head
        + "-- name: one\n-- What for.\nSELECT 1 -- really\n  AS x;\n\n-- name: two\n-- More.\nSELECT 2;\n"
    )
    assert parse(text) == {"one": "SELECT 1 AS x", "two": "SELECT 2"}


def test_refuses_a_name_given_twice() -> None:
    with pytest.raises(ValueError, match="one appears twice"):
        parse("-- name: one\n-- A.\nSELECT 1;\n-- name: one\n-- B.\nSELECT 2;\n")


def test_refuses_a_query_without_description() -> None:
    with pytest.raises(ValueError, match=r"one .*no description"):
        parse("-- name: one\nSELECT 1;\n")


def test_rows_are_repeated() -> None:
    assert for_rows("save_tasks", 3).count("(?, ?, ?, ?, ?, ?, ?, ?)") == 3
    assert for_rows("save_tasks", 1) == queries()["save_tasks"]


def test_all_schemas_are_there_in_order() -> None:
    assert schemas()[0].startswith("-- Schema 1:")
