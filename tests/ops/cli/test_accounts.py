"""`gcompute token`, `key` and `account`: what they make opens a set; the file of accounts holds no secret."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scheduler.accounts.book import name_in
from sets.config import parse
from tests.conftest import ROOT


class Gcompute:
    """The program, with a file of accounts of its own."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "accounts"

    def __call__(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ops.cli.main", *arguments]
        environment = {**os.environ, "GC_ACCOUNTS_FILE": str(self.path)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json").stdout)


@pytest.fixture
def gcompute(tmp_path: Path) -> Gcompute:
    return Gcompute(tmp_path)


def test_an_account_with_keys_and_tokens(gcompute: Gcompute) -> None:
    gcompute("account", "init")
    made = gcompute.json("account", "create", "acme-2")
    assert name_in(made["public_key"]) == "acme-2"
    token = gcompute.json("token", "create", "acme-2", "--name", "ci", "--scope", "read", "--days", "9")
    assert name_in(token["token"]) == "acme-2"
    rotated = gcompute.json("key", "rotate", "acme-2", "--overlap-hours", "1")
    shown = gcompute.json("account", "show", "acme-2")
    assert [key["public_key"] for key in shown["keys"]] == [made["public_key"], rotated["public_key"]]
    assert [key["expires_at"] is None for key in shown["keys"]] == [False, True]
    assert [(each["id"], each["name"], each["scopes"]) for each in shown["tokens"]] == [
        (token["id"], "ci", ["read"])
    ]
    kept = gcompute.path.read_text()
    for secret in (made["private_key"], rotated["private_key"], token["token"]):
        assert secret not in kept + json.dumps(shown) + gcompute("account", "list").stdout
    gcompute("token", "remove", "acme-2", token["id"])
    gcompute("key", "remove", "acme-2", made["public_key"])
    left = gcompute.json("account", "show", "acme-2")
    assert (len(left["keys"]), left["tokens"]) == (1, [])


def test_quotas_and_suspension(gcompute: Gcompute) -> None:
    gcompute("account", "init")
    gcompute("account", "create", "acme")
    quotas = gcompute.json("account", "quota", "acme", "--cores", "2.5", "--requests-per-s", "7")["quotas"]
    assert quotas == {"cores": 2.5, "requests-per-s": 7}
    assert gcompute.json("account", "quota", "acme", "--unset", "cores")["quotas"] == {"requests-per-s": 7}
    gcompute("account", "suspend", "acme", "--why", "unpaid", "--tasks", "cancel")
    (account,) = gcompute.json("account", "list")["accounts"]
    assert (account["suspended"]["why"], account["suspended"]["tasks"]) == ("unpaid", "cancel")
    assert "unpaid (its tasks are cancelled)" in gcompute("account", "show", "acme").stdout
    gcompute("account", "resume", "acme")
    assert gcompute.json("account", "show", "acme")["suspended"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("account", "create", "Acme_Corp"), 64, "lower-case"),
        (("account", "create", "acme"), 64, "exists already"),
        (("account", "show", "other"), 64, "no account 'other'"),
        (("account", "quota", "acme", "--unset", "colour"), 64, "unset: 'colour' is not one of cores"),
        (("token", "create", "acme", "--scope", "all"), 64, "scope: 'all'"),
        (("key", "remove", "acme", "gck_acme_0"), 64, "has no key"),
        (("account", "init"), 74, "exists already"),
    ],
)
def test_what_cannot_be_done_says_why(
    gcompute: Gcompute, arguments: tuple[str, ...], code: int, said: str
) -> None:
    gcompute("account", "init")
    gcompute("account", "create", "acme")
    assert said in gcompute(*arguments, code=code).stderr


def test_an_older_file_is_made_the_newest_on_purpose_only(gcompute: Gcompute, tmp_path: Path) -> None:
    gcompute("account", "init")
    gcompute("account", "create", "acme")
    backup = tmp_path / "backup"
    backup.write_bytes(gcompute.path.read_bytes())
    gcompute("account", "create", "later")
    assert gcompute.json("account", "restore", str(backup))["version"] == 3
    assert [each["account"] for each in gcompute.json("account", "list")["accounts"]] == ["acme"]


def test_a_new_master_key_takes_over(gcompute: Gcompute) -> None:
    gcompute("account", "init")
    gcompute("account", "create", "acme")
    key_file = gcompute.path.with_name("accounts.key")
    old = key_file.read_text()
    key_file.write_text("ab" * 32 + "\n" + old)
    gcompute("account", "rekey")
    key_file.write_text("ab" * 32 + "\n")
    assert gcompute.json("account", "show", "acme")["account"] == "acme"
    key_file.write_text(old)
    assert "not in the key file" in gcompute("account", "list", code=66).stderr


def test_an_operators_token_is_for_the_sets_yaml(gcompute: Gcompute) -> None:
    done = gcompute("token", "operator", "router")
    lines = "\n".join(line.strip() for line in done.stdout.splitlines()[2:])
    config = parse(f"name: a\nstate_dir: x\n{lines}\naccounts_file: y\n", "printed")
    assert len(config.operators["router"].token_hashes) == 1
    assert gcompute.json("token", "operator", "router")["operator"] == "router"
    assert "lower-case" in gcompute("token", "operator", "Acme_Corp", code=64).stderr
