"""Weights of accounts in a set's configuration: two accounts on one slot."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from scheduler.policy.limits import Limits
from tests.sets.api.conftest import Api, StartApi, until


def submit(api: Api, account: str, *words: str) -> dict[str, Any]:
    return api.submit(*words, headers={"X-Account": account})


def get(api: Api, account: str, task: dict[str, Any]) -> dict[str, Any]:
    answer = api.http.get(f"/v1/tasks/{task['id']}", headers={"X-Account": account})
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.docker
def test_an_account_of_weight_three_has_three_tasks_for_each_of_another(start_api: StartApi) -> None:
    api = start_api("max_slots: 1\naccount_weights: {large: 3}\n")
    holder = submit(api, "holder", "sleep", "600")
    until(lambda: get(api, "holder", holder)["state"] == "running", "the only slot is in use")
    sent = [("large", submit(api, "large", "say", "x")) for _ in range(9)]
    sent += [("small", submit(api, "small", "say", "x")) for _ in range(3)]
    # A place changes hands once somebody has waited for it for long enough.
    last = datetime.fromisoformat(sent[-1][1]["created_at"])
    patience = timedelta(seconds=Limits().patience_s)
    until(lambda: datetime.now(UTC) > last + patience, "all have waited for long enough")
    api.http.post(f"/v1/tasks/{holder['id']}/cancel", headers={"X-Account": "holder"})
    started = []
    for account, task in sent:
        ended = until(
            lambda account=account, task=task: (now := get(api, account, task))["ended_at"] and now,  # type: ignore[misc]
            "every task ends",
            120,
        )
        assert ended["state"] == "succeeded"
        started.append((ended["started_at"], account))
    assert [account for _, account in sorted(started)] == ["large", "large", "large", "small"] * 3
