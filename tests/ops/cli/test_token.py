"""`gcompute token`: what it makes opens a set whose YAML holds what it printed."""

from __future__ import annotations

import json
import subprocess
import sys

import yaml

from sets.api.accounts import name_in
from sets.config import parse
from tests.conftest import ROOT


def gcompute(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ops.cli.main", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_printed_yaml_is_the_sets() -> None:
    done = gcompute("token", "acme-2")
    assert done.returncode == 0, done.stderr
    first, _, rest = done.stdout.partition("\n")
    token = first.split()[-1]
    assert name_in(token) == "acme-2"
    lines = "\n".join(line.strip() for line in rest.splitlines()[1:])
    config = parse(f"name: a\nstate_dir: x\n{lines}\n", "printed")
    assert config.authentication
    assert len(config.accounts["acme-2"].token_hashes) == 1
    assert yaml.safe_load(lines)["accounts"]["acme-2"]["token_hashes"][0] not in token


def test_two_tokens_differ_and_json_says_the_same() -> None:
    made = [json.loads(gcompute("token", "acme", "--json").stdout) for _ in range(2)]
    assert made[0]["token"] != made[1]["token"]
    assert made[0]["token_hash"] != made[1]["token_hash"]
    assert name_in(made[0]["token"]) == "acme"


def test_an_operators_token_is_for_another_part_of_the_yaml() -> None:
    done = gcompute("token", "--operator", "router")
    lines = "\n".join(line.strip() for line in done.stdout.splitlines()[2:])
    config = parse(f"name: a\nstate_dir: x\n{lines}\naccounts: {{x: {{token_hashes: []}}}}\n", "printed")
    assert len(config.operators["router"].token_hashes) == 1
    assert json.loads(gcompute("token", "--operator", "router", "--json").stdout)["operator"] == "router"


def test_a_name_that_is_none_is_refused() -> None:
    done = gcompute("token", "Acme_Corp")
    assert done.returncode == 64
    assert "lower-case" in done.stderr
