"""Images that cannot run, and parameters that no careful client sends: a clear answer each, other tasks unharmed."""

from __future__ import annotations

import struct

import pytest

from tests.sets.api.conftest import Api, Tools, problem

pytestmark = pytest.mark.docker


@pytest.fixture(autouse=True)
def others_are_unharmed(api: Api) -> object:
    yield
    assert api.run("cat", body=b"still here").content == b"still here"


# -- images


@pytest.mark.parametrize("headers", [{}, {"Prefer": "respond-async"}])
@pytest.mark.parametrize(
    "image", ["no-such-image:1", "a/b/c:9", "ocr@sha256:" + "0" * 64, "sha256:" + "0" * 64]
)
def test_an_unknown_image(api: Api, image: str, headers: dict[str, str]) -> None:
    found = problem(api.run("x", image=image, headers=headers), 404, "image-unknown")
    assert found["executed"] is False
    assert image in found["detail"]


@pytest.mark.parametrize(
    "image", ["Upper:1", "a:b:c", "a//b", "-x", "%00", "a%20b", "%FF", "a" * 5000, "%2e%2e"]
)
def test_a_malformed_reference(api: Api, image: str) -> None:
    found = problem(api.http.post(f"/v1/run/{image}"), 400, "bad-parameter")
    assert (found["field"], found["executed"]) == ("image", False)


@pytest.mark.parametrize("path", ["/v1/run/", "/v1/run"])
def test_no_image_at_all(api: Api, path: str) -> None:
    answer = api.http.post(path)
    assert answer.status_code in (400, 404)
    assert answer.json()["detail"]


def broken_binaries() -> dict[str, tuple[bytes, str]]:
    elf = bytearray(64)
    elf[:20] = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, 183)
    return {
        "other-machine": (bytes(elf), "Exec format error"),
        "truncated": (b"\x7fELF\x02\x01\x01", "Exec format error"),
        "text": (b"no program\n", "Exec format error"),
        "empty": (b"", "Exec format error"),
        "no-interpreter": (b"#!/bin/no-such-shell\n", "No such file"),
    }


@pytest.mark.parametrize("kind", [*broken_binaries(), "missing", "directory", "relative"])
def test_an_entrypoint_that_cannot_be_executed(api: Api, tools: Tools, kind: str) -> None:
    content, said = broken_binaries().get(kind, (b"x", ""))
    entrypoint = {"missing": "/no/such/program", "directory": "/etc", "relative": "no-such-word"}.get(
        kind, "/p"
    )
    image = tools.make(f'ENTRYPOINT ["{entrypoint}"]', p=content)
    answer = api.run("x", image=image, memory_mib=16)
    found = problem(answer, 422, "task-failed")
    assert (found["reason"], found["executed"], found["exit_code"]) == ("not_executable", False, None)
    assert entrypoint in found["detail"]
    assert said in found["detail"]
    task = api.submit("x", image=image, memory_mib=16)
    ended = api.task(task["id"], wait=20)
    assert (ended["state"], ended["reason"]) == ("failed", "not_executable")
    assert entrypoint in ended["detail"]


def test_an_image_whose_user_does_not_exist(api: Api, tools: Tools) -> None:
    image = tools.make('ENTRYPOINT ["/tool"]', "USER nobody-here")
    found = problem(api.run("say", "x", image=image), 422, "image-unusable")
    assert "USER" in found["detail"]
    task = api.submit("say", "x", image=image)
    ended = api.task(task["id"], wait=20)
    assert (ended["state"], ended["reason"]) == ("failed", "not_executable")
    assert "USER" in ended["detail"]


@pytest.mark.parametrize("label", ["isolation=solitary", "cpu-features=no_such_flag"])
def test_an_image_with_a_bad_label(api: Api, tools: Tools, label: str) -> None:
    image = tools.make('ENTRYPOINT ["/tool"]', f"LABEL org.general-compute.{label}")
    answer = api.run("say", "x", image=image)
    assert answer.status_code in (400, 422)
    assert label.partition("=")[2] in answer.json()["detail"]
    assert answer.json()["executed"] is False


# -- parameters


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("arg=%FF", "arg"),
        ("arg=a%00b", "arg"),
        ("env=X=%00", "env"),
        ("env=%FF=1", "env"),
        ("env=NAME", "env"),
        ("env==x", "env"),
        ("env=GENERAL_COMPUTE_SLOT_TOKEN=x", "env"),
        ("name=" + "n" * 129, "name"),
        ("name=a&name=b", "name"),
        ("timeout_s=301", "timeout_s"),
        ("timeout_s=0", "timeout_s"),
        ("timeout_s=-1", "timeout_s"),
        ("timeout_s=nan", "timeout_s"),
        ("timeout_s=inf", "timeout_s"),
        ("timeout_s=1e1", "timeout_s"),
        ("timeout_s=", "timeout_s"),
        ("timeout_s=1&timeout_s=2", "timeout_s"),
        ("queue_timeout_s=x", "queue_timeout_s"),
        ("stream=yes", "stream"),
        ("stream=", "stream"),
        ("cpu=0", "cpu"),
        ("cpu=0.001", "cpu"),
        ("cpu=1.555", "cpu"),
        ("cpu=3", "cpu"),
        ("cpu=99999999999999", "cpu"),
        ("memory_mib=0", "memory_mib"),
        ("memory_mib=1.5", "memory_mib"),
        ("memory_mib=16777216", "memory_mib"),
        ("memory_mib=99999999999999999999", "memory_mib"),
        ("isolation=none", "isolation"),
        ("cpu_feature=", "cpu_feature"),
        ("cpu_feature=AVX 512", "cpu_feature"),
        ("cpu_feature=no_such_flag", "cpu_feature"),
        ("priority=high", "priority"),
        ("priority=Spare", "priority"),
        ("output=tmp/x", "output"),
        ("Arg=x", "Arg"),
        ("args=x", "args"),
        ("=x", ""),
        ("%FF=x", "\ufffd"),
        ("x" * 4000 + "=1", "x" * 4000),
    ],
)
def test_a_bad_parameter_is_named(api: Api, query: str, field: str) -> None:
    found = problem(api.http.post(f"/v1/run/{api.image}?{query}"), 400, "bad-parameter")
    assert (found["field"], found["executed"]) == (field, False)
    assert len(found["detail"]) < 600


@pytest.mark.parametrize(
    "path",
    [
        *("relative", "/", "/a/", "/a/../b", "//a", "/a/./b", "/" + "x" * 4096, "", "/a%00"),
        *("/proc/self/root/../x", "/tmp/%FF", "/" + "%C3%A9" * 2048, "/x" * 10_000),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"Prefer": "respond-async"}], ids=["sync", "async"])
def test_a_bad_output(api: Api, path: str, headers: dict[str, str]) -> None:
    answer = api.http.post(f"/v1/run/{api.image}?output={path}", headers=headers)
    assert problem(answer, 400, "bad-parameter")["field"] == "output"


def test_too_many_outputs(api: Api) -> None:
    query = "&".join(f"output=/tmp/{n}" for n in range(65))
    answer = api.http.post(f"/v1/run/{api.image}?{query}", headers={"Prefer": "respond-async"})
    assert problem(answer, 400, "bad-parameter")["field"] == "output"


def test_an_async_time_out_above_a_day(api: Api) -> None:
    answer = api.run("say", "x", timeout_s=86_401, headers={"Prefer": "respond-async"})
    assert problem(answer, 400, "bad-parameter")["field"] == "timeout_s"
    assert api.submit("say", "x", timeout_s=86_400)


@pytest.mark.parametrize("headers", [{}, {"Prefer": "respond-async"}])
def test_60_kb_of_arguments(api: Api, headers: dict[str, str]) -> None:
    words = ["a" * 30_000, "b" * 29_000, "c" * 1000]
    answer = api.run("args", *words, headers=headers)
    if headers:
        task = api.task(answer.json()["id"], wait=20)
        assert task["state"] == "succeeded", task
        answer = api.http.get(f"/v1/tasks/{task['id']}/stdout")
    assert answer.content == b"".join(word.encode() + b"\0" for word in words)


def test_many_arguments(api: Api) -> None:
    words = [str(n) for n in range(7000)]
    assert api.run("args", *words).content == b"".join(word.encode() + b"\0" for word in words)


def test_too_many_arguments(api: Api) -> None:
    for headers in ({}, {"Prefer": "respond-async"}):
        answer = api.http.post(f"/v1/run/{api.image}?" + "&".join(["arg="] * 8193), headers=headers)
        assert problem(answer, 400, "bad-parameter")["field"] == "arg"


def test_a_request_line_above_64_kib(api: Api) -> None:
    target = api.target("args", "a" * 60_000)
    for size, status in ((65_536, 200), (65_537, 414), (100_000, 414), (1_000_000, 414)):
        padded = target + "a" * (size - len(f"POST {target} HTTP/1.1"))
        with api.wire() as wire:
            wire.post(padded, "Content-Length: 0")
            answer = wire.answer()
            assert answer.status == status, size
            if status == 414:
                assert answer.problem(414, "uri-too-long")["executed"] is False
