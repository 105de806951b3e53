"""An account of ever new kinds of slots keeps the engine busy: it is refused early, and others are not."""

from __future__ import annotations

import pytest

from tests.sets.api.conftest import StartApi, problem

pytestmark = pytest.mark.docker

CHURN = {"X-Account": "churn"}


def test_new_kinds_of_slots_are_refused_before_a_body_is_read_and_known_ones_run(start_api: StartApi) -> None:
    api = start_api("max_pools_account: 2\n")
    for memory_mib in (30, 31):
        assert api.run("cat", body=b"x", headers=CHURN, memory_mib=memory_mib).content == b"x"
    with api.wire() as wire:
        # No byte of the body is sent.
        wire.post(api.target("cat", memory_mib=32), "X-Account: churn", "Content-Length: 9000000")
        answer = wire.answer()
    refused = answer.problem(429, "account-limit")
    assert refused["executed"] is False
    assert "this account has 2 kinds of slots in this set already" in refused["detail"]
    assert answer.headers["Retry-After"] == "10"
    asynchronous = {**CHURN, "Prefer": "respond-async"}
    problem(api.run("cat", headers=asynchronous, memory_mib=32), 429, "account-limit")
    assert api.run("cat", body=b"x", headers=CHURN, memory_mib=31).content == b"x"
    assert api.run("cat", body=b"x", headers={"X-Account": "other"}, memory_mib=32).content == b"x"


def test_an_account_that_adds_kinds_of_slots_too_fast_is_told_when_to_come_again(start_api: StartApi) -> None:
    # One at once, and then one in a hundred seconds.
    api = start_api("max_new_pools_account_per_s: 0.01\n")
    assert api.run("cat", body=b"x", headers=CHURN, memory_mib=30).content == b"x"
    answer = api.run("cat", body=b"x", headers=CHURN, memory_mib=31)
    assert "0.01 new kinds of slots per second" in problem(answer, 429, "account-limit")["detail"]
    assert 1 <= int(answer.headers["Retry-After"]) <= 100
    assert api.run("cat", body=b"x", headers=CHURN, memory_mib=30).content == b"x"
