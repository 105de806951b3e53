"""A set's configuration: strict, and clear about what is wrong where."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from ops.setup.engine import ROOT
from sets.config import load, parse
from sets.cpu import cpu_features
from sets.server import main
from sets.yaml_file import ConfigError

GOOD = "name: a\nstate_dir: var/a\n"


def test_defaults() -> None:
    config = parse(GOOD, "a.yaml")
    assert (config.name, config.bind, config.authentication) == ("a", "127.0.0.1:8101", False)
    limits = config.limits()
    assert limits.cpu_percent == (os.cpu_count() or 1) * 100
    assert limits.memory_mib > 0


def test_settings() -> None:
    text = "cores: 1.5\nmemory_mib: 512\nmax_slots: 3\nkeep_idle_s: 7\naccount_weights: {acme: 3}\n"
    limits = parse(GOOD + text, "a.yaml").limits()
    assert limits.account_weights == {"acme": 3}
    assert (limits.cpu_percent, limits.memory_mib, limits.max_slots, limits.keep_idle_s) == (150, 512, 3, 7)


@pytest.mark.parametrize("path", sorted((ROOT / "ops/local").glob("set-*.yaml")), ids=lambda path: path.name)
def test_the_local_stacks_own(path: Path) -> None:
    assert load(path).name in ("a", "b")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty; sets/docs/settings.md lists the settings"),
        ("# name: a\n", "the file is empty"),
        ("- name", "must hold settings, each as `name: value`"),
        ("just text", "must hold settings"),
        ("name: a\n", "a.yaml: the setting 'state_dir' is missing; see sets/docs/settings.md"),
        ("state_dir: x\n", "name"),
        (GOOD + "colour: red\n", "colour"),
        (GOOD + "Cores: 2\n", "there is no setting 'Cores'; did you mean 'cores'?"),
        (GOOD + "1: 2\n", "the name of a setting: expected `str`"),
        (GOOD + "name: b\n", "line 3, column 1: the key 'name' appears twice"),
        (GOOD + "? [a, b]\n: 1\n", "key"),
        (GOOD + "? {a: b}\n: 1\n", "key"),
        (GOOD + "cores: 0\n", "cores"),
        (GOOD + "cores: 0.001\n", "cores"),
        (GOOD + "cores: -1\n", "cores"),
        (GOOD + "cores: .inf\n", "cores"),
        (GOOD + "cores: .nan\n", "cores"),
        (GOOD + "cores: two\n", "cores"),
        (GOOD + "memory_mib: 1.5\n", "memory_mib"),
        (GOOD + "memory_mib: 99999999999999999999\n", "memory_mib"),
        (GOOD + "max_slots: 0\n", "max_slots"),
        (GOOD + "keep_idle_s: .inf\n", "keep_idle_s"),
        (GOOD + "account_weights: {acme: 0}\n", "account_weights"),
        (GOOD + "account_weights: {acme: 1.5}\n", "account_weights"),
        (GOOD + "account_weights: {acme: 1001}\n", "account_weights"),
        (GOOD + "account_weights: {Acme: 2}\n", "account_weights: 'Acme'"),
        (GOOD + "account_weights: [acme]\n", "account_weights"),
        (GOOD + "body_stall_s: 0\n", "body_stall_s"),
        (
            GOOD + "log_level: loud\n",
            "log_level: 'loud' is none of critical, debug, error, info, warning; see",
        ),
        (GOOD + "log_level: off\n", "log_level: expected `str`, got `bool`: one of critical, debug, error"),
        (GOOD + "launcher: kubernetes\n", "launcher: 'kubernetes' is none of docker, nomad; see"),
        (GOOD + "tenancy: own\n", "tenancy: 'own' is none of dedicated, shared; see"),
        (
            GOOD + "account_tenancy: {acme: own}\n",
            "account_tenancy[...]: 'own' is none of dedicated, shared; see",
        ),
        (GOOD + "pull: true\n", "pull"),
        (GOOD + "registries: registry.example\n", "registries"),
        (
            GOOD + "registries: [{url: 'https://registry.example'}]\n",
            "registries[0]: the setting 'name' is missing",
        ),
        (
            GOOD + "registries: [{nam: a.example}]\n",
            "registries[0]: there is no setting 'nam'; did you mean 'name'?",
        ),
        (GOOD + "registries: [{name: 'https://registry.example'}]\n", "name"),
        (GOOD + "registries: [{name: a.example}, {name: 'A.example:443'}]\n", "A.example:443 appears twice"),
        (GOOD + "registries: [{name: a.example, url: 'ftp://a.example'}]\n", "url"),
        (GOOD + "registries: [{name: a.example, also: ['auth.example/token']}]\n", "also"),
        (GOOD + "registries: [{name: a.example, username: robot}]\n", "given together"),
        (GOOD + "registries: [{name: a.example, password_file: /dev/null}]\n", "given together"),
        (
            GOOD + "registries: [{name: a.example, username: robot, password_file: /dev/null}]\n",
            "password_file of registry a.example: /dev/null is empty",
        ),
        (
            GOOD + "registries: [{name: a.example, username: robot, password_file: /nowhere}]\n",
            "password_file of registry a.example: /nowhere: No such file or directory",
        ),
        (GOOD + "registration: {service: a}\n", "consul"),
        (GOOD + "registration: {consul: 'http://127.0.0.1:8500/v1'}\n", "consul"),
        (GOOD + "registration: {consul: 'http://127.0.0.1:8500', service: 'a b'}\n", "service"),
        (
            GOOD + "registration: {consul: 'http://127.0.0.1:8500', address: '10.0.0.5'}\n",
            "not like 10.0.0.5",
        ),
        (
            GOOD + "bind: 0.0.0.0:8101\nregistration: {consul: 'http://127.0.0.1:8500'}\n",
            "registration: address: the set listens on 0.0.0.0",
        ),
        (
            GOOD + "registration: {consul: 'http://127.0.0.1:8500', token_file: /nowhere}\n",
            "token_file of registration: /nowhere",
        ),
        (GOOD + "registries: [{name: a.example, ca_file: /nowhere}]\n", "ca_file /nowhere"),
        (GOOD + "authentication: maybe\n", "authentication"),
        (GOOD + "authentication: true\n", "accounts_file is not set"),
        (GOOD + "operators: {Alice: {token_hashes: []}}\n", "Alice"),
        (GOOD + "operators: {alice: {token_hashes: [secret]}}\n", "token_hashes"),
        (GOOD + "operators: {alice: {}}\n", "operators[...]: the setting 'token_hashes' is missing"),
        (GOOD + "operators: {1: {token_hashes: []}}\n", "operators: a name in it: expected `str`, got `int`"),
        (GOOD + "operators: {alice: {token_hashes: [], colour: red}}\n", "colour"),
        (
            GOOD + "operators: {alice: {token_hashes: []}, alice: {token_hashes: []}}\n",
            "'alice' appears twice",
        ),
        ("name: A\nstate_dir: x\n", "name"),
        ("name: a-b\nstate_dir: x\n", "name"),
        ("name: ''\nstate_dir: x\n", "name"),
        ("name: " + "a" * 32 + "\nstate_dir: x\n", "name"),
        ("name: 1\nstate_dir: x\n", "name"),
        ("name: a\nstate_dir: [x]\n", "state_dir"),
        (GOOD + "\tcores: 1\n", "line 3"),
        (GOOD + "cores: [1\n", "line 4, column 1: while parsing a flow sequence, expected ',' or ']'"),
        (GOOD + "cores: !!python/object/apply:os.getcwd []\n", "line 3"),
        (GOOD + "cores: \x01\n", "character 33: special characters are not allowed"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        parse(text, "a.yaml")
    assert str(caught.value).startswith("a.yaml: ")
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for path in (tmp_path / "none.yaml", tmp_path, binary):
        with pytest.raises(ConfigError, match=re.escape(str(path))):
            load(path)


def test_the_program_says_what_is_wrong_and_exits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "set.yaml"
    path.write_text(GOOD + "colour: red\n")
    assert main(path) == 78
    assert "colour" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    path.write_text(f"name: a\nstate_dir: {tmp_path}/file/state\n")
    assert main(path) == 78
    assert "state_dir" in capsys.readouterr().err


def test_cpu_features_are_those_of_every_cpu(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor: 0\nflags\t\t: fpu avx2 sse\nprocessor: 1\nflags\t\t: fpu sse\n")
    assert cpu_features(cpuinfo) == {"fpu", "sse"}
    cpuinfo.write_text("processor: 0\nFeatures\t: asimd\n")
    assert cpu_features(cpuinfo) == {"asimd"}
    cpuinfo.write_text("nothing\n")
    assert cpu_features(cpuinfo) == frozenset()
    assert cpu_features(tmp_path / "none") == frozenset()
    assert cpu_features()
