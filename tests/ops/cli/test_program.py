"""The program itself: help, version, completion, start-up, and starting a set or a router."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ops.cli import cert, exits, main, router, router_rollout, set_group
from tests.ops.cli.program import Program

COMMANDS = [
    *("run", "submit", "status", "result", "logs", "wait", "cancel", "tasks", "replay", "callbacks"),
    *("map", "batch"),
    *("account", "executor", "key", "registrar", "token", "doctor", "nodes", "pools", "queue", "simulate"),
]
BATCH_COMMANDS = ["show", "cancel", "retry", "results"]
SET_COMMANDS = ["start", "drain", "resume", "backup"]
CERT_COMMANDS = ["ca", "set", "executor", "rotate", "retire"]
ROUTER_COMMANDS = [
    *("start", "check", "diff", "status", "history"),
    *("set-weight", "drain", "maint", "ready", "rollback", "simulate"),
]
ROLLOUT_COMMANDS = ["plan", "start", "pause", "resume", "skip", "promote", "abort", "end", "status"]
ALL = [
    [],
    *([name] for name in COMMANDS),
    ["router"],
    *(["router", name] for name in ROUTER_COMMANDS),
    ["router", "rollout"],
    *(["router", "rollout", name] for name in ROLLOUT_COMMANDS),
    *(["batch", name] for name in BATCH_COMMANDS),
    ["set"],
    *(["set", name] for name in SET_COMMANDS),
    ["cert"],
    *(["cert", name] for name in CERT_COMMANDS),
]


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_help_of_every_command_shows_examples(gcompute: Program, command: list[str]) -> None:
    done = gcompute(*command, "--help", env={"COLUMNS": "160"})
    assert done.returncode == 0
    examples = done.stdout.decode().partition("Examples:")[2]
    # A router or a set is started by naming its file alone, too.
    short = {"router": "router ops/local/router.yaml", "set": "set ops/local/set-a.yaml"}
    wanted = short[command[0]] if command[1:] == ["start"] and command[0] in short else " ".join(command)
    assert re.search(rf"gcompute {wanted or '(' + '|'.join(COMMANDS) + ')'}\b", examples)


def test_every_command_has_its_help_tested() -> None:
    assert set(main.program.entries) == {*COMMANDS, "router", "set", "cert"}
    assert set(router.router.entries) == {*ROUTER_COMMANDS, "rollout"}
    assert list(router_rollout.rollout.entries) == ROLLOUT_COMMANDS
    assert list(set_group.set_.entries) == SET_COMMANDS
    assert list(cert.cert.entries) == CERT_COMMANDS


def test_the_version_is_printed(gcompute: Program) -> None:
    done = gcompute("--version")
    assert done.returncode == 0
    assert re.fullmatch(rb"gcompute (\d+\.\d+\S*|\(not installed\))\n", done.stdout)


def test_the_shell_can_complete_commands(gcompute: Program) -> None:
    asked = {"_GCOMPUTE_COMPLETE": "bash_complete", "COMP_WORDS": "gcompute s", "COMP_CWORD": "1"}
    done = gcompute(env=asked)
    assert set(done.stdout.split()) == {b"plain,submit", b"plain,status", b"plain,set", b"plain,simulate"}
    assert b"_GCOMPUTE_COMPLETE=bash_complete" in gcompute("--completion", "bash").stdout


def test_a_mistyped_word_gets_the_one_that_was_meant(gcompute: Program) -> None:
    assert b"Did you mean 'submit'?" in gcompute("sumbit").stderr
    assert b"Did you mean 'check'?" in gcompute("router", "chek").stderr
    assert b"Did you mean '--name'?" in gcompute("run", "--nmae", "x", "cat").stderr


def test_without_a_command_help_is_shown(gcompute: Program) -> None:
    done = gcompute()
    assert done.returncode == exits.USAGE
    assert b"submit" in done.stdout + done.stderr


def test_a_client_command_loads_neither_service_nor_what_it_does_not_use() -> None:
    """Start-up is felt at every call: heavy modules are loaded by the commands that need them."""
    import subprocess

    heavy = [
        "httpx",
        "falcon",
        "gunicorn",
        "docker",
        "yaml",
        "msgspec",
        "asyncio",
        "ssl",
        "rich",
        "structlog",
        "typer",
        "pydantic",
        "hashlib",
        "importlib.metadata",
        "ops.cli.router",
        "ops.cli.serve",
    ]
    script = (
        "import sys; sys.argv = ['gcompute', '--url', 'http://127.0.0.1:1', 'run', '-n', 'cat']\n"
        "from ops.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 125, end.code\n"
        f"print([name for name in {heavy!r} + ['sets', 'router', 'scheduler'] if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(main.__file__).parents[2],
        capture_output=True,
        timeout=40,
        check=True,
    )
    assert done.stdout == b"[]\n"


def test_a_call_of_a_router_loads_what_a_small_call_needs() -> None:
    import subprocess

    script = (
        "import sys; sys.argv = ['gcompute', 'router', 'status', '--admin', 'http://127.0.0.1:1']\n"
        "from ops.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 69, end.code\n"
        "print([name for name in ['httpx', 'rich', 'yaml', 'msgspec', 'asyncio', 'sets'] if name in sys.modules])"
    )
    root = Path(main.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, timeout=40, check=True
    )
    assert done.stdout == b"[]\n"
    assert b"Connection refused" in done.stderr


def test_exit_codes_are_distinct_and_help_shows_them_all(gcompute: Program) -> None:
    codes = {name: value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    assert len(set(codes.values())) == len(codes)
    shown = gcompute("--help").stdout.decode().partition("Exit codes")[2]
    for name, value in codes.items():
        assert re.search(rf"\b{value}\b", shown), f"{name} = {value} is missing"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[object, ...], dict[str, object]]]:
    """Puts a recorder in the place of both services; the list holds the calls."""
    calls: list[tuple[tuple[object, ...], dict[str, object]]] = []

    def record(*args: object, **kwargs: object) -> int:
        calls.append((args, kwargs))
        return 0

    for name in ("sets.server", "router.server"):
        module = ModuleType(name)
        module.main = record  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
    return calls


def invoke(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr(sys, "argv", ["gcompute", *args])
    with pytest.raises(SystemExit) as end:
        main.main()
    assert isinstance(end.value.code, int)
    return end.value.code


def test_set_and_router_start_with_what_was_given(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    started: list[tuple[tuple[object, ...], dict[str, object]]],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("{}")
    assert invoke(monkeypatch, "set", "c.yaml") == 0
    assert invoke(monkeypatch, "set", "c.yaml", "--bind", "[::1]:9") == 0
    assert invoke(monkeypatch, "set", "c.yaml", "--runtime", "crun") == 0
    assert invoke(monkeypatch, "router", "c.yaml") == 0
    given = [
        "--name",
        "r",
        "--bind",
        "h:1",
        "--admin-bind",
        "h:2",
        "--state-dir",
        "s/d",
        "--workers",
        "4",
        "--set-url",
        "a=http://x:1",
        "--trust-front",
        "10.0.0.0/8",
    ]
    again = ["--set-url", "b=http://y", "--trust-front", "192.0.2.1"]
    assert invoke(monkeypatch, "router", "c.yaml", *given, *again) == 0
    defaults = {
        "name": "router",
        "bind": "127.0.0.1:8080",
        "admin_bind": "127.0.0.1:8081",
        "state_dir": "var/router",
        "workers": 1,
    }
    chosen = {"name": "r", "bind": "h:1", "admin_bind": "h:2", "state_dir": "s/d", "workers": 4}
    set_urls = {"a": "http://x:1", "b": "http://y"}
    assert started == [
        ((Path("c.yaml"),), {"bind": None, "runtime": None}),
        ((Path("c.yaml"),), {"bind": "[::1]:9", "runtime": None}),
        ((Path("c.yaml"),), {"bind": None, "runtime": "crun"}),
        (("c.yaml",), {**defaults, "set_urls": {}}),
        (("c.yaml",), {**chosen, "set_urls": set_urls, "trust_fronts": ["10.0.0.0/8", "192.0.2.1"]}),
    ]
    assert Path("s/d").is_dir()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["set", "missing.yaml"], "missing.yaml"),
        (["set", "c.yaml", "--bind", "8080"], "--bind"),
        (["set", "c.yaml", "--bind", "h:99999"], "--bind"),
        (["router", "c.yaml", "--admin-bind", "127.0.0.1:8080"], "--admin-bind"),
        (["router", "--admin-bind", "127.0.0.1:8080", "c.yaml"], "--admin-bind"),
        (["router", "start", "c.yaml", "--bind", "8080"], "--bind"),
        (["router", "missing.yaml"], "missing.yaml"),
        (["router", "chek", "c.yaml"], "chek"),
        (["router", "c.yaml", "--set-url", "http://x"], "--set-url"),
        (["router", "c.yaml", "--set-url", "a=x"], "--set-url"),
        (["router", "c.yaml", "--set-url", "a=http://x", "--set-url", "a=http://y"], "--set-url"),
    ],
)
def test_a_wrong_option_is_named_and_nothing_starts(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    started: list[tuple[tuple[object, ...], dict[str, object]]],
    arguments: list[str],
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("{}")
    assert invoke(monkeypatch, *arguments) == exits.USAGE
    assert named in capsys.readouterr().err
    assert started == []


@pytest.mark.parametrize("option", ["--url", "--token", "--account"])
def test_options_of_the_service_may_stand_before_the_command(gcompute: Program, option: str) -> None:
    done = gcompute(option, "http://127.0.0.1:1", "status", "a-1", env={"GC_URL": "http://127.0.0.1:1"})
    assert done.returncode in (exits.UNAVAILABLE, exits.USAGE)
    assert b"No such option" not in done.stderr
