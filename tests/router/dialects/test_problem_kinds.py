"""The pages about the router's own problems: one for each problem that it can answer, there even when no set is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import router
from router.dialects.problem_kinds import KINDS
from tests.router.rig import answering, running


def problems_in_source() -> Iterator[tuple[str, int]]:
    """Name and status of each problem that the router's modules make."""
    for path in Path(router.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Problem", "refuse"):
                match node.args:
                    case [ast.Constant(int(status)), ast.Constant(str(name)), *_]:
                        yield name, status


def test_every_problem_is_explained_and_no_other() -> None:
    assert dict(problems_in_source()) == {name: kind.status for name, kind in KINDS.items()}


async def test_a_problem_links_to_its_page_and_no_set_is_asked_for_it() -> None:
    async with running({"a": answering()}) as rig:
        problem = await rig.ask(b"GET /v1/tasks/z-1 HTTP/1.1\r\nHost: h\r\n\r\n")
        assert problem.status == 404
        link = re.fullmatch('<(/problems/router-unknown-task)>; rel="help"', problem.headers["link"])
        assert link is not None
        page = await rig.ask(f"GET {link[1]} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert b"Check the id." in page.body
        assert all(f'href="/problems/router-{name}"'.encode() in page.body for name in KINDS)
        assert rig.sets["a"].requests == []


@pytest.mark.parametrize(
    "request_line", [b"GET /problems/router-", b"GET /problems/task-failed", b"POST /problems/router-no-set"]
)
async def test_what_is_no_page_of_the_routers_is_asked_of_a_set(request_line: bytes) -> None:
    async with running({"a": answering()}) as rig:
        await rig.ask(b"%b HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n" % request_line)
        assert len(rig.sets["a"].requests) == 1
