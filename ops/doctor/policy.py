"""Judges of a Nomad token: what it may do, and what of that a registrar does not need. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ops.doctor.finding import Finding, fail, ok, warn

NEEDED: Final = (
    frozenset({"list-jobs"}),
    frozenset({"read-job"}),
    frozenset({"parse-job", "submit-job"}),
    frozenset({"register-job", "submit-job"}),
    frozenset({"deregister-job", "submit-job"}),
    frozenset({"purge-job", "submit-job"}),
    frozenset({"alloc-lifecycle"}),
)
"""Capabilities in the set's namespace that a registrar needs: one of each."""
ALLOWED: Final = frozenset().union(*NEEDED)
VOLUMES: Final = frozenset({"gc-bin", "gc-dev", "gc-hide", "gc-hosts", "gc-run"})
"""The host volumes that slots mount. A pattern such as gc-* also means the folders of sets and of other registrars."""
SHORTHANDS: Final = {
    "read": frozenset({"list-jobs", "parse-job", "read-job"}),
    "write": frozenset(
        {
            "list-jobs",
            "parse-job",
            "read-job",
            "submit-job",
            "alloc-lifecycle",
            "alloc-exec",
            "read-fs",
            "read-logs",
        }
    ),
}
"""The words of a namespace's `policy`, as far as they matter here."""
_MEND: Final = "apply ops/nomad/policies/registrar.hcl, and make a token that has this policy alone"


@dataclass(frozen=True)
class Token:
    """A Nomad token's own record, and the policies that it names, as Nomad parsed them."""

    kind: str
    policies: Mapping[str, Mapping[str, Any]]
    expires_in_s: float | None = None


def token(facts: Token, namespace: str) -> Iterator[Finding]:
    """Judge the token of the registrar that registers jobs in `namespace`."""
    if facts.kind == "management":
        yield fail("the token is a management token: it may do everything in the cluster", _MEND)
        return
    if facts.expires_in_s is not None and facts.expires_in_s < 14 * 86_400:
        yield warn(
            f"the token expires in {facts.expires_in_s / 86_400:.1f} days",
            "make a new one, and write its file",
        )
    capabilities: set[str] = set()
    wide: list[str] = []
    for name, rules in facts.policies.items():
        capabilities |= _of_namespace(rules, namespace)
        wide += [f"{what} (policy {name})" for what in _too_wide(rules, namespace)]
    lacking = [" or ".join(sorted(each)) for each in NEEDED if not each & capabilities]
    if lacking:
        yield fail(
            f"the token lacks {', '.join(lacking)} in namespace {namespace}: slots do not start", _MEND
        )
    if wide:
        yield fail(f"the token may do more than a registrar needs: {'; '.join(sorted(set(wide)))}", _MEND)
    if not lacking and not wide:
        yield ok(f"the token may do what a registrar needs in namespace {namespace}, and nothing more")


def _of_namespace(rules: Mapping[str, Any], namespace: str) -> set[str]:
    found: set[str] = set()
    for each in _list(rules, "Namespaces"):
        if each.get("Name") in (namespace, "*"):
            found |= {*(each.get("Capabilities") or ()), *SHORTHANDS.get(each.get("Policy") or "", ())}
    return found


def _too_wide(rules: Mapping[str, Any], namespace: str) -> Iterator[str]:
    for each in _list(rules, "Namespaces"):
        name = each.get("Name")
        granted = {*(each.get("Capabilities") or ()), *SHORTHANDS.get(each.get("Policy") or "", ())} - {
            "deny"
        }
        if name != namespace and granted:
            yield f"namespace {name}"
        elif extra := granted - ALLOWED:
            yield f"{', '.join(sorted(extra))} in namespace {name}"
        if (each.get("Variables") or {}).get("Paths"):
            yield f"variables in namespace {name}"
    for kind, harmless in (
        ("Node", {"read"}),
        ("Agent", set()),
        ("Operator", set()),
        ("Plugin", {"read", "list"}),
    ):
        policy = (rules.get(kind) or {}).get("Policy") or ""
        if policy not in ("", "deny") and policy not in harmless:
            yield f"{kind.lower()} {policy}"
    if set((rules.get("Operator") or {}).get("Capabilities") or ()) - {"deny"}:
        yield "capabilities of an operator"
    for volume in _list(rules, "HostVolumes"):
        name = str(volume.get("Name"))
        writes = volume.get("Policy") == "write" or "mount-readwrite" in (volume.get("Capabilities") or ())
        if writes or name not in VOLUMES:
            yield f"host volumes {name}{' to write' if writes else ''}"
    for pool in _list(rules, "NodePools"):
        if pool.get("Policy") == "write" or set(pool.get("Capabilities") or ()) & {"write", "delete"}:
            yield f"node pool {pool.get('Name')} to write"


def _list(rules: Mapping[str, Any], key: str) -> Iterable[Mapping[str, Any]]:
    found: Iterable[Mapping[str, Any]] = rules.get(key) or ()
    return found
