"""The policy of a registrar's token: enough, and not too wide."""

from __future__ import annotations

from typing import Any

import pytest

from ops.doctor import policy
from ops.doctor.finding import Finding, Level
from ops.doctor.policy import VOLUMES, Token

CAPABILITIES = [
    "list-jobs",
    "read-job",
    "parse-job",
    "register-job",
    "deregister-job",
    "purge-job",
    "alloc-lifecycle",
]


def rules(**changed: Any) -> dict[str, Any]:
    """The policy of ops/nomad/policies/registrar.hcl as Nomad shows it, with changes."""
    return {
        "Namespaces": [{"Name": "gc-a", "Policy": "", "Capabilities": CAPABILITIES, "Variables": None}],
        "HostVolumes": [
            {"Name": name, "Policy": "read", "Capabilities": ["mount-readonly"]} for name in VOLUMES
        ],
        "NodePools": None,
        "Node": {"Policy": "read"},
        "Agent": None,
        "Operator": None,
        "Plugin": None,
        **changed,
    }


def judged(**changed: Any) -> list[Finding]:
    return list(policy.token(Token("client", {"p": rules(**changed)}), "gc-a"))


def test_the_policy_that_we_ship_is_right() -> None:
    assert [each.level for each in judged()] == [Level.OK]


def test_a_management_token_is_too_much() -> None:
    (found,) = policy.token(Token("management", {}), "gc-a")
    assert found.level is Level.FAIL


def test_an_older_nomads_submit_job_is_enough() -> None:
    capabilities = ["list-jobs", "read-job", "submit-job", "alloc-lifecycle"]
    assert [each.level for each in judged(Namespaces=[{"Name": "gc-a", "Capabilities": capabilities}])] == [
        Level.OK
    ]


def test_a_token_that_lacks_a_capability_is_told_which() -> None:
    (found,) = judged(Namespaces=[{"Name": "gc-a", "Capabilities": CAPABILITIES[:3]}])
    assert found.level is Level.FAIL
    assert "register-job or submit-job" in found.text
    (none,) = policy.token(Token("client", {}), "gc-a")
    assert "lacks list-jobs" in none.text


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"Node": {"Policy": "write"}}, "node write"),
        ({"Agent": {"Policy": "read"}}, "agent read"),
        ({"Operator": {"Policy": "read"}}, "operator read"),
        ({"Operator": {"Policy": "", "Capabilities": ["snapshot-save"]}}, "capabilities of an operator"),
        ({"HostVolumes": [{"Name": "*", "Policy": "read"}]}, "host volumes *"),
        ({"HostVolumes": [{"Name": "gc-*", "Policy": "read"}]}, "host volumes gc-*"),
        ({"HostVolumes": [{"Name": "gc-run", "Policy": "write"}]}, "host volumes gc-run to write"),
        ({"NodePools": [{"Name": "default", "Policy": "write"}]}, "node pool default to write"),
        (
            {"Namespaces": [{"Name": "gc-a", "Capabilities": [*CAPABILITIES, "alloc-exec"]}]},
            "alloc-exec in namespace gc-a",
        ),
        ({"Namespaces": [{"Name": "*", "Policy": "write", "Capabilities": CAPABILITIES}]}, "namespace *"),
        (
            {
                "Namespaces": [
                    {"Name": "gc-a", "Capabilities": CAPABILITIES},
                    {"Name": "gc-b", "Policy": "read"},
                ]
            },
            "namespace gc-b",
        ),
        (
            {
                "Namespaces": [
                    {
                        "Name": "gc-a",
                        "Capabilities": CAPABILITIES,
                        "Variables": {"Paths": [{"PathSpec": "*"}]},
                    }
                ]
            },
            "variables in namespace gc-a",
        ),
    ],
)
def test_a_right_that_no_registrar_needs_is_told(changed: dict[str, Any], words: str) -> None:
    (found,) = judged(**changed)
    assert found.level is Level.FAIL
    assert f"{words} (policy p)" in found.text
    assert "policies/registrar.hcl" in found.mend


def test_what_is_denied_is_no_right() -> None:
    denied = [
        {"Name": "gc-a", "Capabilities": CAPABILITIES},
        {"Name": "*", "Policy": "deny", "Capabilities": ["deny"]},
    ]
    assert [each.level for each in judged(Namespaces=denied)] == [Level.OK]


def test_a_token_that_ends_soon_is_told() -> None:
    found = list(policy.token(Token("client", {"p": rules()}, expires_in_s=86_400.0), "gc-a"))
    assert [each.level for each in found] == [Level.WARN, Level.OK]
