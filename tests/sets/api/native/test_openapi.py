"""/openapi.json: a valid document, and the set does what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import OpenAPIV31SpecValidator

from sets.api.native.openapi import document
from tests.sets.api.conftest import Api

DOCUMENT = document("a")


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """With the document's components beside it, where its references lead."""
    return {**schema, "components": DOCUMENT["components"]}


def check(name: str, value: Any) -> None:
    schema = resolved({"$ref": f"#/components/schemas/{name}", "additionalProperties": True})
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(value)
    # And nothing that the document does not tell.
    if name == "Task":
        assert set(value) == set(DOCUMENT["components"]["schemas"]["Task"]["properties"])


def test_the_document_is_valid() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_the_links_of_a_202_name_operations_and_their_parameters() -> None:
    operations = {
        operation["operationId"]: operation
        for path in DOCUMENT["paths"].values()
        for operation in path.values()
    }
    links = operations["runTask"]["responses"]["202"]["links"]
    assert set(links) == {
        "getTask",
        "getStdout",
        "getStderr",
        "headStdout",
        "headStderr",
        "cancelTask",
        "findTaskByKey",
    }
    for link in links.values():
        parameters = {f"{at['in']}.{at['name']}" for at in operations[link["operationId"]]["parameters"]}
        assert set(link["parameters"]) <= parameters


@pytest.mark.docker
def test_it_is_served(api: Api) -> None:
    answer = api.http.get("/openapi.json")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == document(api.process.name)


@pytest.mark.docker
def test_tasks_are_as_it_says(api: Api) -> None:
    running = api.submit("sleep", "60")
    check("Task", running)
    check("Task", api.http.post(f"/v1/tasks/{running['id']}/cancel").json())
    for words in (("say", "x"), ("exit", "1"), ("signal", "9"), ("eat", "1000")):
        check("Task", api.task(api.submit(*words)["id"], wait=20))
    page = api.http.get("/v1/tasks").json()
    listed = DOCUMENT["paths"]["/v1/tasks"]["get"]["responses"]["200"]["content"]["application/json"][
        "schema"
    ]
    Draft202012Validator(resolved(listed)).validate(page)
    assert set(page) == set(listed["properties"]) - {
        "missing"
    }  # A router alone knows of sets that are not there.


@pytest.mark.docker
def test_problems_are_as_it_says(api: Api) -> None:
    for answer in (
        api.run("exit", "1"),
        api.run("sleep", "60", timeout_s=0.1),
        api.run("x", cpu=0),
        api.run("x", image="no-such:1"),
        api.http.get("/v1/tasks/none"),
        api.http.get("/nowhere"),
        api.http.put("/livez"),
    ):
        assert answer.status_code >= 400
        check("Problem", answer.json())


@pytest.mark.docker
def test_every_path_of_it_is_there(api: Api) -> None:
    for path, methods in DOCUMENT["paths"].items():
        at = path.replace("{image}", "no-such:1").replace("{id}", "none").replace("{path}", "x")
        for method, operation in methods.items():
            answer = api.http.request(method, at)
            assert str(answer.status_code) in operation["responses"], (method, path, answer.text)
            there = answer.status_code < 400 or "not-found" not in answer.text
            assert there or path == "/problems/{name}"


@pytest.mark.docker
def test_whatever_schemathesis_thinks_of(api: Api, tmp_path: Path) -> None:
    """Requests made from the document alone, good and bad ones: no answer that it does not tell, so no 500 either.

    Two checks are left out: the 501 of a method that nobody has here is RFC 9110's, and 503 is an answer that is told.
    A request that each schema allows may still be refused: an image's name, a range, a time-out too long for a sync
    task; and a task may fail. Links lead from a task's 202 to what is asked about it.
    """
    (tmp_path / "batch_bodies.py").write_text(
        "import schemathesis\n"
        "@schemathesis.serializer('application/jsonl', 'application/x-ndjson', 'application/x-tar')\n"
        "def as_it_is(_, value): return value if isinstance(value, bytes) else str(value).encode()\n"
    )
    (tmp_path / "schemathesis.toml").write_text(
        'hooks = "batch_bodies"\n'
        "[checks.positive_data_acceptance]\n"
        'expected-statuses = ["2xx", 400, 401, 403, 404, 409, 410, 413, 414, 415, 416, 422, 429, 431, "5xx"]\n'
        # What breaks the schema is often also too long for a request line (414) or a header (431).
        "[checks.negative_data_rejection]\n"
        'expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 414, 415, 422, 428, 429, 431, "5xx"]\n'
    )
    without = "unsupported_method,not_a_server_error"
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            *("run", f"{api.process.url}/openapi.json", "--exclude-checks", without, "--seed", "7"),
            # That would drain the set, which then refuses all other calls.
            *("--exclude-path", "/v1/admin/drain"),
            *(
                "--max-examples",
                "20",
                "--phases",
                "examples,coverage,fuzzing,stateful",
                "--request-timeout",
                "20",
                "--no-color",
            ),
        ],
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    _, _, failures = done.stdout.partition("= FAILURES =")
    assert done.returncode == 0, (failures or done.stdout)[:4000] + done.stderr[-1000:]
