"""The import arrows of the architecture: which package may know which, and where third parties are fenced in.

    router    never imports scheduler or sets: they meet over HTTP
    sets      → scheduler
    scheduler → nothing of ours
    ops       → all of them; none of them → ops

The rules are read from source text, so that an import inside a function counts as much as one at the top.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = ("router", "scheduler", "sets", "ops")

MAY_IMPORT = {
    "router": {"router"},
    "scheduler": {"scheduler"},
    "sets": {"sets", "scheduler"},
    "ops": {"ops", "router", "scheduler", "sets"},
}

# Who may import what; patterns are of fnmatch, where `*` matches `/` too.
FENCED = {
    "falcon": ("sets/api/native/*", "sets/api/ugc/resource.py", "router/admin/*"),
    "cryptography": ("ops/certificates/*", "scheduler/accounts/sealing.py", "sets/executor/link/expiry.py"),
    "docker": ("scheduler/launchers/docker*.py",),
    "nomad": ("scheduler/launchers/nomad/api.py",),
    "consul": ("sets/registration.py",),
    "opentelemetry": ("sets/telemetry/*",),
    "sqlite3": ("scheduler/store/*",),
    "aiosqlite": ("scheduler/store/*",),
    "apsw": ("scheduler/store/*",),
    "asyncpg": ("scheduler/store/*",),
    "psycopg": ("scheduler/store/*",),
    "psycopg2": ("scheduler/store/*",),
    "sqlalchemy": ("scheduler/store/*",),
    # One HTTP library for each side of the product: the services use httpx, the clients of an operator h11 or urllib,
    # and requests belongs to the libraries of Docker, Nomad and Consul, whose errors it raises.
    "httpx": (
        "router/discovery/asking.py",
        "router/rollout/outside.py",
        "scheduler/launchers/nomad/events.py",
        "scheduler/registry/client.py",
        "ops/nomad/*",
        "ops/demo/*",
    ),
    # The library under httpx, which alone lets a caller decide which address is connected to.
    "httpcore": ("scheduler/callbacks/sending.py",),
    "requests": (
        "scheduler/launchers/docker_engine.py",
        "scheduler/launchers/nomad/api.py",
        "sets/registration.py",
    ),
    "urllib3": ("scheduler/launchers/docker_engine.py", "scheduler/launchers/nomad/api.py"),
    "urllib.request": ("scheduler/registry/challenge.py", "ops/*"),
    "http.client": ("ops/*",),
    "h11": ("ops/client/wire.py",),
    "aiohttp": (),
}

# What decides knows neither clocks nor loops nor files: it is given the time, and returns what is to be done.
IMPURE = (
    "asyncio",
    "uvloop",
    "threading",
    "time",
    "datetime",
    "os",
    "socket",
    "subprocess",
    "pathlib",
    "structlog",
)
PURE = {
    "scheduler/policy/*": (*IMPURE, "random", "secrets"),
    **dict.fromkeys(
        (
            "scheduler/callbacks/networks.py",
            "scheduler/callbacks/payload.py",
            "scheduler/callbacks/schedule.py",
            "scheduler/callbacks/target.py",
            "scheduler/callbacks/verdict.py",
        ),
        (*IMPURE, "random", "secrets"),
    ),
    # Choosing among sets by their weights draws lots.
    "router/routing/*": IMPURE,
    "router/choosing/*": IMPURE,
    "router/dialects/*": (*IMPURE, "random", "secrets"),
}
SQL_FILES = "scheduler/store/*"


def imported(tree: ast.AST, path: str) -> Iterator[tuple[int, str]]:
    """Line and absolute module name of everything that the source at `path` imports, wherever it does."""
    package = path.split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{stem}.{alias.name}" if stem else alias.name
        elif isinstance(node, ast.Call) and _called(node.func) in ("import_module", "__import__"):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield node.lineno, argument.value


def _is_in(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def violations(source: str, path: str) -> list[str]:
    """What in a source breaks a rule; `path` is relative to the root, with slashes."""
    package = path.split("/")[0]
    tree = ast.parse(source, path)
    found = []
    for line, module in imported(tree, path):
        top = module.split(".")[0]
        if top in OURS and top not in MAY_IMPORT[package]:
            found.append(f"{path}:{line}: {package} must not import {top}")
        for fenced, allowed in FENCED.items():
            if _is_in(module, fenced) and not any(fnmatch(path, pattern) for pattern in allowed):
                found.append(f"{path}:{line}: {fenced} belongs in {' or '.join(allowed) or 'no module'} only")
        for pure, forbidden in PURE.items():
            if top in forbidden and fnmatch(path, pure):
                found.append(
                    f"{path}:{line}: {pure} decides without {top}: take what it gives as an argument"
                )
    if not fnmatch(path, SQL_FILES):
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith(".sql"):
                found.append(f"{path}:{node.lineno}: SQL belongs in {SQL_FILES} only")
    return found


def sources() -> list[Path]:
    return sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))


def test_the_arrows_hold_over_the_whole_tree() -> None:
    found = []
    for path in sources():
        found += violations(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
    assert not found, "\n".join(found)


def test_sql_lies_in_the_store_only() -> None:
    files = [
        path.relative_to(ROOT).as_posix() for package in OURS for path in (ROOT / package).rglob("*.sql")
    ]
    assert [path for path in files if not fnmatch(path, SQL_FILES)] == []


def test_every_package_was_looked_at() -> None:
    """A moved or renamed package must not turn the rules off in silence."""
    seen = {path.relative_to(ROOT).parts[0] for path in sources()}
    assert seen == set(OURS) == set(MAY_IMPORT)
    unknown = {
        path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name not in (*OURS, "tests")
    }
    assert unknown == set(), "a new package needs its arrows here"


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("router/table.py", "import scheduler"),
        ("router/table.py", "from sets.api import runs"),
        ("router/table.py", "def f():\n    from scheduler.task import Task"),
        ("router/table.py", "if TYPE_CHECKING:\n    import sets.server as s"),
        ("router/wire/head.py", "from ...sets import server"),
        ("router/table.py", "import importlib\nimportlib.import_module('sets.server')"),
        ("router/table.py", "__import__('scheduler')"),
        ("scheduler/manager.py", "from sets import assembly"),
        ("scheduler/manager.py", "import router.routing.table"),
        ("scheduler/policy/queue.py", "from ops.client import Client"),
        ("sets/assembly.py", "import router"),
        ("sets/assembly.py", "import ops.cli"),
        ("scheduler/manager.py", "import falcon"),
        ("sets/executor/stream.py", "from falcon.asgi import App"),
        ("sets/assembly.py", "import falcon.asgi"),
        ("router/worker.py", "from falcon import asgi"),
        ("scheduler/manager.py", "import docker"),
        ("scheduler/launchers/nomad.py", "from docker.errors import APIError"),
        ("scheduler/launchers/contract.py", "import docker"),
        ("ops/demo/main.py", "import docker"),
        ("scheduler/launchers/docker.py", "import nomad"),
        ("scheduler/launchers/nomad/registrar.py", "import nomad"),
        ("router/discovery/watcher.py", "from consul import Consul"),
        ("scheduler/manager.py", "import sqlite3"),
        ("sets/api/native/tasks.py", "from sqlite3 import connect"),
        ("sets/api/runs.py", "import falcon.asgi"),
        ("sets/api/native/tasks.py", "TEXT = (HERE / 'queries.sql').read_text()"),
        ("scheduler/policy/cell.py", "import time"),
        ("scheduler/policy/cell.py", "def f():\n    from time import monotonic"),
        ("scheduler/policy/shares.py", "import random"),
        ("scheduler/policy/shares.py", "import structlog"),
        ("router/choosing/health.py", "import asyncio"),
        ("router/routing/table.py", "from pathlib import Path"),
        ("router/dialects/native.py", "import random"),
        ("router/relay/plane.py", "import httpx"),
        ("router/discovery/asking.py", "import aiohttp"),
        ("sets/assembly.py", "from requests import get"),
        ("sets/assembly.py", "from urllib import request"),
        ("sets/assembly.py", "from urllib.request import urlopen"),
        ("scheduler/manager.py", "import http.client"),
    ],
)
def test_the_checker_sees_each_kind_of_breach(path: str, source: str) -> None:
    assert violations(source, path)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "router/assembly.py",
            "from router.routing.table import Table\nfrom .wire import head\nimport asyncio",
        ),
        ("router/admin/app.py", "import falcon.asgi"),
        ("router/table.py", "import setsuna, operator\nfrom schedulers import x\nNOTE = 'import sets'"),
        ("sets/assembly.py", "from scheduler.manager import Manager\nfrom sets.api import app"),
        ("sets/api/native/tasks.py", "import falcon"),
        ("scheduler/manager.py", "from .store import sqlite\nfrom scheduler.launchers import docker"),
        ("scheduler/launchers/docker.py", "import docker\nfrom docker.errors import NotFound"),
        ("scheduler/launchers/docker_slots.py", "from docker import APIClient"),
        ("scheduler/launchers/nomad/api.py", "import nomad"),
        ("scheduler/store/sqlite.py", "import sqlite3\nTEXT = (HERE / 'queries.sql').read_text()"),
        ("ops/cli/serve.py", "from sets.server import main\nfrom router.server import main"),
        ("scheduler/policy/cell.py", "import heapq\nfrom scheduler.policy import timers"),
        ("router/choosing/retry.py", "import random"),
        ("scheduler/floor.py", "import asyncio"),
        ("scheduler/registry/client.py", "import httpx\nfrom urllib.parse import urlsplit"),
        ("sets/http/connection.py", "from http import HTTPStatus"),
        ("ops/local/stack.py", "import urllib.request"),
    ],
)
def test_the_checker_lets_pass_what_is_allowed(path: str, source: str) -> None:
    assert violations(source, path) == []
