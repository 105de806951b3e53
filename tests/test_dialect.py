"""One dialect of Python in all packages: the rules of CONTRIBUTING.md that ruff cannot check."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

PRODUCT = ("router", "scheduler", "sets", "ops")
CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]+")
SNAKE = re.compile(r"[a-z0-9]+(_[a-z0-9]+)+")
TYPES_THAT_LOOK_CONSTANT = ("TypeVar", "ParamSpec")

LOG_CALLS = tuple(f"log.{level}" for level in ("debug", "info", "warning", "error", "exception", "critical"))
MAY_IMPORT_LOGGING = ("router/log_lines.py", "sets/log_lines.py")
"""The log lines of a service take in the records of libraries."""


def breaches(source: str, path: str) -> Iterator[str]:
    """Each place of the source at `path` (relative to the root, with slashes) that breaks a rule, and the remedy."""
    tree = ast.parse(source, path)
    for statement in tree.body:
        name = _constant_without_final(statement)
        if name is not None:
            yield f"{path}:{statement.lineno}: write `{name}: Final = …`"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from _log_breaches(node, path)
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        module = _imports(node)
        if "dataclasses" in module and not path.startswith("ops/"):
            yield f"{path}:{node.lineno}: a service's records are msgspec.Struct, not dataclasses"
        if "logging" in module and not path.startswith(MAY_IMPORT_LOGGING):
            yield f"{path}:{node.lineno}: log with structlog.get_logger()"


def _constant_without_final(node: ast.stmt) -> str | None:
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        called = node.value.func if isinstance(node.value, ast.Call) else None
        if isinstance(called, ast.Name) and called.id in TYPES_THAT_LOOK_CONSTANT:
            return None
        name, annotation = node.targets[0].id, ""
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        name, annotation = node.target.id, ast.unparse(node.annotation)
    else:
        return None
    if not CONSTANT.fullmatch(name) or annotation.startswith(("Final", "TypeAlias")):
        return None
    return name


def _log_breaches(call: ast.Call, path: str) -> Iterator[str]:
    called = ast.unparse(call.func)
    if called in LOG_CALLS or called == "Trouble":
        for text in call.args:
            if isinstance(text, ast.Constant) and SNAKE.fullmatch(str(text.value)):
                yield f"{path}:{call.lineno}: write the event as words: {str(text.value).replace('_', ' ')!r}"
    if called == "structlog.get_logger" and call.args:
        yield f"{path}:{call.lineno}: loggers have no names here: write structlog.get_logger()"
    if called not in LOG_CALLS:
        return
    if len(call.args) != 1 or isinstance(call.args[0], ast.JoinedStr | ast.BinOp | ast.Call):
        yield f"{path}:{call.lineno}: the event is a few fixed words; everything else goes into keys"


def _imports(node: ast.Import | ast.ImportFrom) -> tuple[str, ...]:
    if isinstance(node, ast.Import):
        return tuple(each.name.split(".")[0] for each in node.names)
    return () if node.level else ((node.module or "").split(".")[0],)


def test_every_package_is_written_in_the_same_dialect() -> None:
    found: list[str] = []
    for package in PRODUCT:
        for file in sorted((ROOT / package).rglob("*.py")):
            path = file.relative_to(ROOT).as_posix()
            found += breaches(file.read_text(encoding="utf-8"), path)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("sets/cpu.py", "MAX_CORES = 4"),
        ("sets/cpu.py", "_NAMES: tuple[str, ...] = ()"),
        ("sets/cpu.py", "from dataclasses import dataclass"),
        ("sets/cpu.py", "import logging"),
        ("router/relay/plane.py", "import logging"),
        ("ops/cli/run.py", "def main():\n    from logging import getLogger"),
        ("router/worker.py", "log = structlog.get_logger(__name__)"),
        ("router/worker.py", "log.info(f'set {name} is up')"),
        ("router/worker.py", "log.info('set %s is up' % name)"),
        ("router/worker.py", "log.info('set %s is up', name)"),
        ("router/worker.py", "log.error(str(error))"),
        ("router/worker.py", "log.info('set_is_up', set=name)"),
        ("sets/registration.py", "Trouble('registry is away', 'registry_is_back')"),
    ],
)
def test_each_breach_is_found(path: str, source: str) -> None:
    assert len(list(breaches(source, path))) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("sets/cpu.py", "MAX_CORES: Final = 4\n_NAMES: Final[tuple[str, ...]] = ()\nlower = 1"),
        ("sets/cpu.py", "T = TypeVar('T')\nP = ParamSpec('P')"),
        ("sets/log_lines.py", "import logging"),
        ("router/log_lines.py", "import logging"),
        ("ops/cli/run.py", "from dataclasses import dataclass"),
        ("router/worker.py", "log = structlog.get_logger()\nlog.info('set is up', set=name)"),
        ("scheduler/trouble.py", "log.info(self._ends, tries=2)"),
        ("router/rollout/rates.py", "log(x + y)"),
    ],
)
def test_what_the_dialect_allows_passes(path: str, source: str) -> None:
    assert list(breaches(source, path)) == []
