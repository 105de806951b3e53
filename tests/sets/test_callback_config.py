"""The settings of callbacks: checked when the set starts, and the secrets read again when their file changes."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sets.callback_config import CallbacksConfig, CallbackSecrets
from sets.config import parse
from sets.yaml_file import ConfigError

OLD, NEW = ("whsec_" + base64.b64encode(letter * 32).decode() for letter in (b"o", b"n"))
BASE = "name: a\nstate_dir: /tmp/a\n"


def callbacks(text: str) -> CallbacksConfig:
    found = parse(f"{BASE}callbacks:\n{text}", "set.yaml").callbacks
    assert found is not None
    return found


def write(path: Path, text: str) -> None:
    """Replace the file, as an operator's editor does."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    os.replace(fresh, path)


def test_without_the_setting_no_account_has_a_secret() -> None:
    assert parse(BASE, "set.yaml").callbacks is None
    assert CallbackSecrets(CallbacksConfig()).of("acme") == ()


def test_secrets_are_found_by_account() -> None:
    secrets = CallbackSecrets(callbacks(f"  secrets: {{acme: [{NEW}, {OLD}]}}\n"))
    assert secrets.of("acme") == (NEW, OLD)
    assert secrets.of("other") == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("  secrets: {acme: [whsec_short]}\n", "callbacks: secrets: acme: a secret is not whsec_"),
        ("  secrets: {acme: []}\n", "callbacks: secrets: acme: from 1 to 8 secrets, not 0"),
        (f"  secrets: {{Acme: [{OLD}]}}\n", "callbacks: secrets: 'Acme' is not lower-case letters"),
        ("  networks: [10.0.0.1/8]\n", "callbacks: networks: 10.0.0.1/8 has host bits set"),
        ("  networks: [ten]\n", "callbacks: networks: 'ten'"),
        ("  ca_file: /nowhere/ca.pem\n", "callbacks: ca_file /nowhere/ca.pem"),
        ("  secrets_file: /nowhere/secrets.yaml\n", "callbacks: secrets_file: /nowhere/secrets.yaml"),
        ("  url: compute.example\n", "callbacks.url"),
        ("  secret: {}\n", "there is no setting 'secret'; did you mean 'secrets'?"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        callbacks(text)
    assert said in str(caught.value)
    assert OLD not in str(caught.value)


class TestSecretsFile:
    def test_its_secrets_come_before_those_of_the_configuration(self, tmp_path: Path) -> None:
        path = tmp_path / "secrets.yaml"
        write(path, f"secrets: {{acme: [{NEW}], other: [{NEW}]}}")
        secrets = CallbackSecrets(callbacks(f"  secrets: {{acme: [{OLD}]}}\n  secrets_file: {path}\n"))
        assert secrets.of("acme") == (NEW, OLD)
        assert secrets.of("other") == (NEW,)

    def test_it_is_read_again_when_it_changes(self, tmp_path: Path) -> None:
        path = tmp_path / "secrets.yaml"
        write(path, f"secrets: {{acme: [{OLD}]}}")
        secrets = CallbackSecrets(callbacks(f"  secrets_file: {path}\n"))
        assert secrets.of("acme") == (OLD,)
        write(path, f"secrets: {{acme: [{NEW}, {OLD}]}}")
        assert secrets.of("acme") == (NEW, OLD)

    @pytest.mark.parametrize("broken", ["secrets: [", "secrets: {acme: [whsec_x]}", "other: {}", ""])
    def test_one_that_is_broken_later_leaves_them_as_they_were(self, tmp_path: Path, broken: str) -> None:
        path = tmp_path / "secrets.yaml"
        write(path, f"secrets: {{acme: [{OLD}]}}")
        secrets = CallbackSecrets(callbacks(f"  secrets_file: {path}\n"))
        write(path, broken)
        with capture_logs() as logs:
            assert secrets.of("acme") == (OLD,)
        assert [line["event"] for line in logs] == ["callback secrets cannot be read"]
        path.unlink()
        assert secrets.of("acme") == (OLD,)
        write(path, f"secrets: {{acme: [{NEW}]}}")
        assert secrets.of("acme") == (NEW,)
