"""How many requests an account may send in a second: refused early and exactly, and nobody else is."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from scheduler.accounts.account import Quotas
from tests.sets.api.conftest import StartApi, problem
from tests.sets.api.people import People, bearer
from tests.sets.api.test_life import metric
from tests.sets.api.wire import Wire, head

pytestmark = pytest.mark.docker

TASK = "/v1/tasks/a-01jd3000000000000000000000"
FLOOD = 100


def test_a_flood_is_refused_before_its_bodies_are_read_and_others_are_served(start_api: StartApi) -> None:
    api = start_api("max_requests_account_per_s: 1\n")
    with api.wire() as wire:
        # All are there at once, so the last come too fast however slow the set is.
        flood = [head("GET", TASK, "X-Account: flood") for _ in range(FLOOD)]
        wire.send(
            "".join(flood) + head("POST", api.target("cat"), "X-Account: flood", "Content-Length: 9000000")
        )
        answers = [wire.answer() for _ in range(FLOOD)]
        assert [answer.status for answer in answers[:5]] == [404] * 5, "five seconds' worth may come at once"
        refused = [answer for answer in answers if answer.status == 429]
        assert refused
        told = refused[-1].problem(429, "account-limit")
        assert "this account may send 1 requests per second" in told["detail"]
        assert refused[-1].headers["Retry-After"] == "1"
        # No byte of this one's body was sent.
        assert wire.answer().problem(429, "account-limit")["executed"] is False
    assert api.run("cat", body=b"hello", headers={"X-Account": "other"}).content == b"hello"
    assert metric(api, "gc_requests_over_rate_total") == len(refused) + 1
    time.sleep(int(refused[-1].headers["Retry-After"]))
    assert api.http.get(TASK, headers={"X-Account": "flood"}).status_code == 404, "Retry-After is true"


def test_accounts_have_rates_of_their_own(start_api: StartApi, tmp_path: Path) -> None:
    people = People(tmp_path)
    people.add("alice", Quotas(requests_per_s=1))
    people.add("bob-x")
    alice, bob = people.token("alice").token, people.token("bob-x").token
    api = start_api(people.settings)
    assert statuses(api.wire(), alice) == {404, 429}
    assert statuses(api.wire(), bob) == {404}
    problem(api.http.get(TASK, headers=bearer("gc_alice_wrong")), 401, "unauthorized")


def statuses(wire: Wire, token: str) -> set[int]:
    with wire:
        wire.send("".join(head("GET", TASK, f"Authorization: Bearer {token}") for _ in range(FLOOD)))
        return {wire.answer().status for _ in range(FLOOD)}
