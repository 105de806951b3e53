"""UGC's calls about tasks on a real set with authentication, as each of the four clients makes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlencode

import docker
import pytest

from scheduler.accounts.book import NewKey
from sets.api.ugc.signature import sign
from tests.sets.api.conftest import Api, StartApi, until
from tests.sets.api.people import People
from tests.sets.api.ugc.clients import REGION, UgcClient, members, said

pytestmark = pytest.mark.docker


class Site(NamedTuple):
    """A set, and two of its accounts."""

    api: Api
    people: People
    alice: UgcClient
    bob: UgcClient


@pytest.fixture(scope="module")
def site(engine: docker.DockerClient, tool: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    people = People(tmp_path_factory.mktemp("people"))
    keys = [people.add(name) for name in ("alice", "bob")]
    start = StartApi(engine, tool, tmp_path_factory)
    api = start(people.settings + "max_input_mib: 1\n")
    yield Site(api, people, *(UgcClient(api.http, pair) for pair in keys))
    start.end()


def submitted(site: Site, *pairs: tuple[str, str], body: bytes = b"", token: str | None = None) -> str:
    token = token or site.alice.token()
    answer = site.alice.with_token("SubmitTask", token, ("ImageName", site.api.image), *pairs, body=body)
    task_id: str = said(answer, 0, "", "SubmitTask")["TaskId"]
    return task_id


def finished(site: Site, token: str, task_id: str) -> None:
    def ended() -> bool:
        answer = site.alice.with_token("GetTaskResult", token, ("TaskId", task_id))
        return answer.headers["Content-Type"] != "application/json" or answer.json()["RetCode"] != -1

    until(ended, "the task has ended")


SYNC = (("TaskType", "Sync"), ("TimeOut", "10"))


class TestSync:
    def test_the_answer_is_a_tar_with_what_the_task_wrote(self, site: Site) -> None:
        token = site.alice.token()
        answer = site.alice.with_token(
            "SubmitTask", token, ("ImageName", site.api.image), ("Cmd", "cat"), *SYNC, body=b"hello\0\r\n"
        )
        assert members(answer) == {"Stdout": b"hello\0\r\n"}

    @pytest.mark.parametrize("size_bytes", [0, 1, 65_536, 65_537, 900_000])
    def test_outputs_of_all_sizes_come_whole(self, site: Site, size_bytes: int) -> None:
        token, body = site.alice.token(), bytes(size_bytes)
        answer = site.alice.with_token(
            "SubmitTask", token, ("ImageName", site.api.image), ("Cmd", "cat"), *SYNC, body=body
        )
        assert members(answer) == ({"Stdout": body} if body else {})

    def test_a_task_that_fails_is_json_with_the_code_of_the_container(self, site: Site) -> None:
        token = site.alice.token()
        answer = site.alice.with_token(
            "SubmitTask", token, ("ImageName", site.api.image), ("Cmd", "exit 3"), *SYNC, body=b""
        )
        assert "exit code 3" in said(answer, 43048, "SubmitTaskContainerError", "SubmitTask")["Detail"]

    def test_an_output_that_ends_badly_after_64_kib_is_json_too(self, site: Site) -> None:
        token = site.alice.token()
        answer = site.alice.with_token(
            "SubmitTask",
            token,
            ("ImageName", site.api.image),
            ("Cmd", "cat"),
            ("TaskType", "Sync"),
            ("TimeOut", "1"),
            ("OutputFileName", "/tmp/none"),
            body=bytes(100_000),
        )
        assert set(members(answer)) == {"Stdout"}, "a file that the task did not write is left out"


class TestAsync:
    def test_a_result_can_be_fetched_again_and_again(self, site: Site) -> None:
        token = site.alice.token()
        # Java and C++ send TimeOut=10 with async tasks, too; C++ calls the name task_name.
        task_id = submitted(
            site,
            ("Cmd", "cat"),
            ("TaskType", "Async"),
            ("TimeOut", "10"),
            ("task_name", "mine"),
            body=b"x" * 9000,
        )
        assert task_id.startswith(f"{site.api.process.name}-")
        finished(site, token, task_id)
        for _ in range(2):
            answer = site.alice.with_token("GetTaskResult", token, ("TaskId", task_id))
            assert members(answer) == {"Stdout": b"x" * 9000}
        shown = said(site.alice.signed("GetTaskDetail", ("TaskId", task_id)), 0, "", "GetTaskDetail")
        assert (shown["State"], shown["TaskType"], shown["TaskName"]) == ("Success", "Async", "mine")
        assert (shown["Cmd"], shown["Owner"], shown["Timeout"]) == ("cat", "alice", 10)
        assert shown["StdoutBrief"].startswith("xxx")
        assert 0 < shown["CreateTime"] <= shown["StartTime"] <= shown["EndTime"]
        assert isinstance(shown["CPUUsage"], int)

    def test_absent_task_type_is_async_and_a_running_task_is_not_finished(self, site: Site) -> None:
        token = site.alice.token()
        task_id = submitted(site, ("Cmd", "sleep 1000"))
        answer = site.alice.with_token("GetTaskResult", token, ("TaskId", task_id))
        assert said(answer, -1, "Not Finish", "GetTaskResult")["State"] == "Running"
        stopped = site.alice.with_token("StopTask", token, ("TaskId", task_id))
        assert said(stopped, 0, "", "StopTask")["TaskId"] == task_id
        answer = site.alice.with_token("GetTaskResult", token, ("TaskId", task_id))
        assert said(answer, 43048, "SubmitTaskContainerError")["State"] == "Fail"

    def test_a_task_that_had_ended_is_not_stopped(self, site: Site) -> None:
        token = site.alice.token()
        task_id = submitted(site, ("Cmd", "say x"))
        finished(site, token, task_id)
        said(site.alice.with_token("StopTask", token, ("TaskId", task_id)), 43039, "StopTaskFail", "StopTask")


class TestClients:
    def test_go_leaves_parameters_out_and_signs_in_any_order(self, site: Site) -> None:
        token = site.alice.token()
        sent = [
            ("AccessToken", token),
            ("ImageName", site.api.image),
            ("TaskType", "Sync"),
            ("Cmd", "say a"),
        ]
        answer = site.alice.send(
            "POST", [*sent, ("Region", REGION), ("Date", ""), ("Action", "SubmitTask")], b""
        )
        assert members(answer) == {"Stdout": b"a\n"}

    def test_cpp_encodes_a_blank_as_20_and_calls_an_empty_path(self, site: Site) -> None:
        client = UgcClient(site.api.http, site.alice.keys, blank="%20")
        answer = client.with_token(
            "SubmitTask",
            client.token(),
            ("ImageName", site.api.image),
            ("Cmd", "say 'a  b'"),
            *SYNC,
            body=b"",
        )
        assert members(answer) == {"Stdout": b"a  b\n"}

    def test_python_signs_calls_that_carry_a_token_and_sends_state_none(self, site: Site) -> None:
        token = site.alice.token()
        task_id = submitted(site, ("Cmd", "say x"), token=token)
        finished(site, token, task_id)
        answer = site.alice.signed("GetTaskResult", ("TaskId", task_id), ("AccessToken", token))
        assert members(answer) == {"Stdout": b"x\n"}

    def test_an_image_is_named_with_the_registrys_host_or_without(self, site: Site) -> None:
        token = site.alice.token()
        name = f"cn-bj2.ugchub.service.ucloud.cn/{site.api.image}"
        answer = site.alice.with_token(
            "SubmitTask", token, ("ImageName", name), ("Cmd", "say x"), *SYNC, body=b""
        )
        assert members(answer) == {"Stdout": b"x\n"}


class TestWhoAsks:
    def test_a_token_lives_as_long_as_it_says(self, site: Site) -> None:
        answer = said(site.alice.signed("GetAccessToken"), 0, "\u6210\u529f", "GetAccessToken")
        assert answer["ExpireIn"] == 7200
        short = site.alice.token(("ExpireIn", "1"))
        until(
            lambda: site.alice.with_token("GetTaskResult", short, ("TaskId", "x")).json()["RetCode"] == 43005,
            "the token has expired",
        )
        # Another token, and one that was made before, are both valid.
        task_id = submitted(site, ("Cmd", "say x"), token=answer["AccessToken"])
        assert task_id

    @pytest.mark.parametrize(
        ("change", "code", "message"),
        [
            ({"Signature": "0" * 40}, 171, "Signature VerifyAC Error"),
            ({"Signature": ""}, 170, "Missing Signature"),
            ({"PublicKey": ""}, 170, "Missing Signature"),
            ({"PublicKey": "gck_alice_0"}, 172, "PublicKey Not Found"),
            ({"Region": "elsewhere"}, 171, "Signature VerifyAC Error"),
        ],
    )
    def test_a_management_call_needs_its_signature(
        self, site: Site, change: dict[str, str], code: int, message: str
    ) -> None:
        sent = [("Action", "GetAccessToken"), ("Region", REGION), ("PublicKey", site.alice.keys.public_key)]
        sent.append(("Signature", sign(sent, site.alice.keys.private_key)))
        changed = [(name, change.get(name, value)) for name, value in sent]
        said(site.alice.send("GET", changed), code, message, "GetAccessToken")

    def test_tokens_that_are_none_and_tokens_of_others(self, site: Site) -> None:
        token = site.alice.token()
        task_id = submitted(site, ("Cmd", "say x"), token=token)
        for wrong in ("x", token[:-1], token.replace("alice", "bob"), token + "A"):
            answer = site.alice.with_token("GetTaskResult", wrong, ("TaskId", task_id))
            said(answer, 43004, "TokenNotVaild", "GetTaskResult")
        for action in ("GetTaskResult", "StopTask"):
            answer = site.bob.with_token(action, site.bob.token(), ("TaskId", task_id))
            said(answer, 43016, "TaskNotFound", action)
        said(site.bob.signed("GetTaskDetail", ("TaskId", task_id)), 43016, "TaskNotFound", "GetTaskDetail")
        # A signature beside a valid token must be right, and of the same account.
        mixed = site.bob.signed("GetTaskResult", ("TaskId", task_id), ("AccessToken", token))
        said(mixed, 171, "Signature VerifyAC Error", "GetTaskResult")

    def test_a_removed_key_takes_its_tokens_along(self, site: Site) -> None:
        pair: NewKey = site.people.add("carol")
        carol = UgcClient(site.api.http, pair)
        until(lambda: carol.signed("GetAccessToken").json()["RetCode"] == 0, "the set knows carol")
        token = carol.token()
        changes = site.people.changes()
        site.people.file.change(lambda book: (changes.remove_key(book, "carol", pair.public_key), None))
        until(
            lambda: carol.with_token("GetTaskResult", token, ("TaskId", "x")).json()["RetCode"] == 43004,
            "the token is worth nothing",
        )


class TestBadInput:
    @pytest.mark.parametrize(
        ("pairs", "code", "message"),
        [
            ([], 160, "Missing Action"),
            ([("Action", "")], 160, "Missing Action"),
            ([("Action", "RunTask")], 161, "Action Not Found"),
            ([("Action", "SubmitTask")], 43006, "ParaMiss"),
            ([("Action", "SubmitTask"), ("Action", "StopTask")], 43033, "ParaError"),
        ],
    )
    def test_calls_that_are_none(
        self, site: Site, pairs: list[tuple[str, str]], code: int, message: str
    ) -> None:
        assert said(site.alice.send("GET", pairs), code, message)["Detail"]

    @pytest.mark.parametrize(
        ("pairs", "code", "message"),
        [
            ([("Region", "")], 43006, "ParaMiss"),
            ([("ImageName", "")], 43006, "ParaMiss"),
            ([("ImageName", "no-such-image:1")], 43024, "ImageNameNotValid"),
            ([("ImageName", "A B")], 43024, "ImageNameNotValid"),
            ([("TaskType", "Later")], 43033, "ParaError"),
            ([("TimeOut", "301")], 43033, "ParaError"),
            ([("TimeOut", "-1")], 43033, "ParaError"),
            ([("Cmd", "say 'x")], 43033, "ParaError"),
            ([("OutputFileName", "a/../b")], 43033, "ParaError"),
            ([("TaskName", "x" * 200)], 43033, "ParaError"),
            ([("TaskName", "\udcff")], 43033, "ParaError"),
        ],
    )
    def test_parameters_that_are_wrong(
        self, site: Site, pairs: list[tuple[str, str]], code: int, message: str
    ) -> None:
        usual = {"Action": "SubmitTask", "Region": REGION, "ImageName": site.api.image, "TaskType": "Sync"}
        changed = usual | dict(pairs) | {"AccessToken": site.alice.token()}
        if changed.get("TaskName") == "\udcff":
            changed["TaskName"] = ""
            answer = site.api.http.post(f"/?{urlencode(changed)}&TaskName=%ff")
            said(answer, code, message)
            return
        assert said(site.alice.send("POST", list(changed.items()), b""), code, message, "SubmitTask")[
            "Detail"
        ]

    def test_an_input_over_the_accounts_limit(self, site: Site) -> None:
        large = b"x" * ((1 << 20) + 1)
        answer = site.alice.with_token(
            "SubmitTask",
            site.alice.token(),
            ("ImageName", site.api.image),
            ("Cmd", "sink"),
            *SYNC,
            body=large,
        )
        assert "over the 1048576 bytes" in said(answer, 43033, "ParaError", "SubmitTask")["Detail"]
