"""`gcompute doctor` as people run it: a real process that examines this machine and real parts."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ops.certificates.authority import Authority
from tests.conftest import StartSet
from tests.ops.cli.program import Program
from tests.ops.doctor.test_cluster import SECRET, a_cluster
from tests.ports import free_port

PATIENCE_S = 200.0
"""Against hanging only: each question to a part that hangs takes 5 s, and a busy machine ten times as long."""
PLANTED = (
    SECRET,
    "hunter2-of-the-registry",
    "gc_router_" + "5" * 48,
    "gc_acme_" + "6" * 48,
    "url-password",
    "admin-token-of-the-router",
)
"""Secrets that lie in files, variables and addresses which the doctor looks at."""


@pytest.fixture
def gcompute() -> Program:
    return Program("http://127.0.0.1:1")


def run(gcompute: Program, *args: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    with gcompute.start("doctor", *args, env=env) as process:
        try:
            out, err = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(args, process.returncode, out, err)


def findings(gcompute: Program, *args: str, **env: str) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """What it found, by part and check."""
    done = run(gcompute, "--json", *args, **env)
    assert done.returncode in (0, 1), done.stderr
    document = json.loads(done.stdout)
    levels = [each["level"] for each in document["findings"]]
    assert document["ok"] == ("fail" not in levels) == (done.returncode == 0)
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for each in document["findings"]:
        found.setdefault((each["part"], each["check"]), []).append(each)
    return found


def test_this_machine_and_its_engine_are_examined_line_by_line(gcompute: Program, docker_host: str) -> None:
    done = run(gcompute, DOCKER_HOST=docker_host)
    lines = done.stdout.decode().splitlines()
    assert lines[0] == "this machine"
    assert f"engine {docker_host}" in lines
    assert any(line.startswith("  ✓ version: Docker ") for line in lines)
    signs = [line[2] for line in lines if line.startswith("  ")]
    assert set(signs) <= set("✓!✗–")
    # A line that tells of something wrong tells how to mend it.
    assert all("  → " in line for line in lines if line[:4] in ("  ! ", "  ✗ "))
    assert done.returncode == (1 if "✗" in signs else 0)


def test_an_engine_that_is_away_is_told_and_the_rest_is_examined(gcompute: Program, tmp_path: Path) -> None:
    found = findings(gcompute, DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    (version,) = found[f"engine unix://{tmp_path}/none.sock", "version"]
    assert version["level"] == "fail"
    assert "systemctl start docker" in version["mend"]
    assert ("this machine", "kernel") in found


def test_a_set_that_runs_and_its_router_are_examined(
    gcompute: Program, start_set: StartSet, tmp_path: Path, docker_host: str
) -> None:
    its_set = start_set("doctor")
    config = tmp_path / "set.yaml"
    config.write_text(its_set.config.read_text() + f"bind: 127.0.0.1:{its_set.port}\n")
    router = tmp_path / "router.yaml"
    router.write_text(
        f'version: 1\nsets: {{x: {{url: "{its_set.url}"}}, gone: {{url: "http://127.0.0.1:{free_port()}"}}}}\n'
        "default: {weights: {x: 100, gone: 0}}\n"
    )
    admin = f"http://127.0.0.1:{free_port()}"
    found = findings(
        gcompute,
        *("--set", str(config), "--router", str(router), "--admin", admin),
        DOCKER_HOST=docker_host,
    )
    part = f"set {its_set.name}"
    for name in ("file", "authentication", "capacity", "guest", "folder", "disk", "address", "ready"):
        assert found[part, name][0]["level"] == "ok", found[part, name]
    at_router = f"router {router}"
    # The set has another name than the router's file gives it.
    assert f"set {its_set.name} answers at the address of set x" in found[at_router, "set x"][0]["text"]
    assert found[at_router, "set gone"][0]["level"] == "unknown"
    assert "no answer" in found[at_router, "status"][0]["text"]
    assert found["all parts", "builds"][0]["level"] == "ok"


def test_files_with_mistakes_are_told_without_their_lines(gcompute: Program, tmp_path: Path) -> None:
    broken = tmp_path / "set.yaml"
    broken.write_text(f"name: a\nstate_dir: [\naccounts: {{acme: {PLANTED[3]}}}\n")
    router = tmp_path / "router.yaml"
    router.write_text("version: x\n")
    done = run(
        gcompute, "--set", str(broken), "--router", str(router), "--executor", str(tmp_path / "no.yaml")
    )
    assert done.returncode == 1
    said = done.stdout.decode()
    assert f"set {broken}" in said
    assert f"gcompute router check {router}" in said
    assert "no.yaml: No such file or directory" in said
    assert PLANTED[3] not in said


def test_an_executor_and_the_set_that_uses_it_are_examined(gcompute: Program, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    authority.make()
    authority.issue_to_executor("n1", tmp_path / "n1", 5)
    authority.issue_to_set("a", tmp_path / "a", 100)
    (tmp_path / "n1/identity.pem").chmod(0o644)
    executor = tmp_path / "executor.yaml"
    executor.write_text(
        f"node: n1\nstate_dir: {tmp_path}/state\ncertificates: {tmp_path}/n1\n"
        f"bind: 127.0.0.1:{free_port()}\nrun_folder: {tmp_path}/node/run\nsets: {{a: {{}}}}\n"
    )
    its_set = tmp_path / "set.yaml"
    its_set.write_text(
        f"name: a\nstate_dir: {tmp_path}/a-state\nbind: 127.0.0.1:{free_port()}\n"
        f"executors: {{n1: {{address: '127.0.0.1:{free_port()}'}}}}\nlink_certificates: {tmp_path}/a\n"
    )
    found = findings(gcompute, "--executor", str(executor), "--set", str(its_set))
    assert found["executor n1", "key"][0]["level"] == "fail"
    (certificate,) = found["executor n1", "certificate"]
    assert (certificate["level"], "gcompute cert executor n1" in certificate["mend"]) == ("warn", True)
    assert found["executor n1", "capacity for a"][0]["level"] == "ok"
    assert found["executor n1", "dresser"][0]["level"] == "ok"
    assert f"{tmp_path}/node/bin is missing" in found["executor n1", "node folder"][0]["text"]
    assert "does not run" in found["executor n1", "address"][0]["text"]
    assert found["set a", "certificate"][0]["level"] == "ok"
    (away,) = found["set a", "executor n1"]
    assert (away["level"], "Connection refused" in away["text"]) == ("fail", True)


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_no_secret_is_printed(gcompute: Program, tmp_path: Path, form: tuple[str, ...]) -> None:
    acl, registry, operator, account, password, admin = PLANTED
    for name, secret in (("acl", acl), ("registry", registry), ("operator", operator)):
        (tmp_path / name).write_text(secret)
    its_set = tmp_path / "set.yaml"
    its_set.write_text(
        f"name: a\nstate_dir: {tmp_path}/state\n"
        f"docker_host: tcp://user:{password}@127.0.0.1:{free_port()}\n"
        f"registries: [{{name: r.example, username: u, password_file: {tmp_path}/registry}}]\n"
    )
    mistaken = tmp_path / "mistaken.yaml"
    mistaken.write_text(its_set.read_text() + f"operators: {{{account}: {{token_hashes: []}}}}\n")
    router = tmp_path / "router.yaml"
    router.write_text(
        f"version: 1\noperator_token_file: {tmp_path}/operator\n"
        f'sets: {{a: {{url: "http://127.0.0.1:{free_port()}"}}}}\ndefault: {{weights: {{a: 100}}}}\n'
    )
    registrar = tmp_path / "registrar.yaml"
    paths = {"/v1/acl/token/self": {"Type": "management", "SecretID": acl, "Policies": None}}
    with a_cluster(paths) as address:
        door = address.replace("http://", f"http://user:{password}@")
        registrar.write_text(
            f"set_name: a\nsocket: {tmp_path}/r.sock\naddress: {door}\ntoken_file: {tmp_path}/acl\n"
        )
        done = run(
            gcompute,
            *("--set", str(its_set), "--set", str(mistaken)),
            *("--router", str(router), "--registrar", str(registrar), *form),
            GC_ADMIN_TOKEN=admin,
            GC_ADMIN_URL=f"http://127.0.0.1:{free_port()}",
        )
    assert done.returncode == 1
    said = (done.stdout + done.stderr).decode()
    for words in (
        "engine tcp://…@127.0.0.1",
        "operators: '…' is not",
        f"{tmp_path}/acl has mode",
        "Nomad at http://…@",
    ):
        assert words in said
    for secret in PLANTED:
        assert secret not in said
