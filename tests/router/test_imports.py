"""Modules of the router know each other in one direction only, so that each can be read, tested and replaced alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def imports_of(path: Path) -> Iterator[str]:
    """Absolute names of the router's modules that a file imports, for types alone included."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield stem
            yield from (f"{stem}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def graph() -> dict[str, set[str]]:
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in (ROOT / "router").rglob("*.py")
        if path.name != "__init__.py"
    }
    return {name: {other for other in imports_of(path) if other in paths} for name, path in paths.items()}


def circles(modules: dict[str, set[str]]) -> list[str]:
    """What is left once all that knows nobody (any more) was taken away."""
    left = {name: set(known) for name, known in modules.items()}
    while free := [name for name, known in left.items() if not known & left.keys()]:
        for name in free:
            del left[name]
    while free := [name for name in left if not any(name in known for known in left.values())]:
        for name in free:
            del left[name]
    return sorted(left)


def test_no_module_is_in_a_circle() -> None:
    modules = graph()
    assert "router.relay.exchange" in modules["router.relay.plane"]
    assert circles(modules) == []


def test_a_circle_is_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set(), "e": {"a", "d"}}) == ["b", "c"]
