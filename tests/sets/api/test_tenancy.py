"""Accounts that need machines of their own, on a real set and a real engine."""

from __future__ import annotations

from typing import Any

import docker
import pytest

from scheduler.launchers.labels import LABEL_ACCOUNT, LABEL_SET
from tests.sets.api.conftest import Api, StartApi, until

pytestmark = pytest.mark.docker


def accounts_there(engine: docker.DockerClient, api: Api) -> set[str]:
    """The accounts whose slots the engine has now, in any state."""
    containers = engine.containers.list(all=True, filters={"label": f"{LABEL_SET}={api.process.name}"})
    return {container.labels[LABEL_ACCOUNT] for container in containers}


def say(api: Api, account: str, word: str) -> str:
    answer = api.run("say", word, headers={"X-Account": account})
    assert answer.status_code == 200, answer.text
    return answer.text


def test_a_machine_serves_one_account_at_a_time(start_api: StartApi, engine: docker.DockerClient) -> None:
    """Each takes it over from another that would have kept its slot for five minutes."""
    api = start_api("account_tenancy: {bank: dedicated, clinic: dedicated}\nkeep_idle_s: 300\n")
    for account in ("bank", "shop", "clinic", "bank"):
        assert say(api, account, "hello") == "hello\n"
        assert accounts_there(engine, api) == {account}
    # The others share it.
    for account in ("shop", "mill"):
        say(api, account, "hello")
    assert accounts_there(engine, api) == {"shop", "mill"}


def test_a_task_says_that_it_waits_for_a_node_of_its_own(start_api: StartApi) -> None:
    api = start_api("account_tenancy: {bank: dedicated}\nnode_turn_s: 1\n")
    shop, bank = {"X-Account": "shop"}, {"X-Account": "bank"}

    def task(of: dict[str, str], one: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = api.http.get(f"/v1/tasks/{one['id']}", headers=of).json()
        return found

    holder = api.submit("sleep", "600", headers=shop)
    until(lambda: task(shop, holder)["state"] == "running", "the machine is the shop's")
    waiting = api.submit("say", "x", headers=bank)
    words = (
        "it waits for a node of its own: one is being emptied; tasks of another account end there first (1)"
    )
    until(lambda: words in (task(bank, waiting)["waiting_for"] or ""), "it says what it waits for")
    api.http.post(f"/v1/tasks/{holder['id']}/cancel", headers=shop)
    until(lambda: task(bank, waiting)["state"] == "succeeded", "the machine is the bank's")
