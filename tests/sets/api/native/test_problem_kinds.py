"""Each type of problem leads to a page, and the page tells what the code answers."""

from __future__ import annotations

import ast
import html
from collections.abc import Iterator

import pytest

from sets.api.native import problems
from sets.api.native.problem_kinds import KINDS
from tests.conftest import ROOT
from tests.sets.api.conftest import Api, problem

FACTORIES = {"Problem"}


def made() -> Iterator[tuple[str, int]]:
    """Name and status of each problem that the code of a set makes."""
    for path in sorted((ROOT / "sets").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FACTORIES:
                status, name = node.args[:2]
                if isinstance(name, ast.Constant) and isinstance(status, ast.Constant):
                    yield str(name.value), int(str(status.value))
    yield from ((name, status) for status, name, _ in problems._KNOWN.values())
    yield from ((name, status) for status, name in problems._HTTP_NAMES.items())


def test_every_problem_has_its_page_and_no_page_is_left_over() -> None:
    found = dict(made())
    assert len(found) > 30
    found |= {"http-error": 400}  # For statuses that have no name of their own.
    assert {name: kind.status for name, kind in KINDS.items()} == found


@pytest.mark.docker
def test_a_problem_leads_to_its_page(api: Api) -> None:
    for answer, status, name in (
        (api.http.get("/v1/tasks/none"), 404, "task-unknown"),
        (api.http.get("/nowhere"), 404, "not-found"),
        (api.run("exit", "1"), 422, "task-failed"),
        (api.http.request("BREW", "/livez"), 501, "not-implemented"),
    ):
        problem(answer, status, name)
        page = api.http.get(answer.links["help"]["url"])
        assert page.status_code == 200
        assert page.headers["Content-Type"].startswith("text/html")
        assert KINDS[name].meaning in html.unescape(page.text)
    everything = api.http.get("/problems").text
    assert all(f'href="/problems/{name}"' in everything for name in KINDS)
    problem(api.http.get("/problems/no-such"), 404, "not-found")


@pytest.mark.docker
def test_head_is_get_without_a_body(api: Api) -> None:
    small, large = (api.submit("cat", body=b"x" * size) for size in (5, 100_000))
    for task in (small, large):
        api.task(task["id"], wait=20)
        for path in (f"/v1/tasks/{task['id']}/stdout", f"/v1/tasks/{task['id']}"):
            get, head = (api.http.request(method, path) for method in ("GET", "HEAD"))
            assert (head.status_code, head.content) == (200, b"")
            names = ("Content-Length", "Content-Type", "Accept-Ranges", "X-Set")
            assert [head.headers.get(name) for name in names] == [get.headers.get(name) for name in names]
    part = api.http.head(f"/v1/tasks/{large['id']}/stdout", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.headers["Content-Length"], part.content) == (206, "10", b"")
    for path in ("/livez", "/readyz", "/metrics", "/openapi.json", "/problems", "/v1/tasks"):
        assert api.http.head(path).status_code == 200
    assert api.http.head("/v1/tasks/none/stdout").status_code == 404
    refused = api.http.head("/v1/run/x")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "POST, OPTIONS")
