"""The admin application over a router that runs: status, history, rollout."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import falcon.testing
import pytest

from router.admin.app import NEEDS_FORCE, create_app
from router.assembly import Router, Settings
from router.counting.stats import Recent
from tests.router.rig import a_set_that_answers, eventually, free_port

YAML = """
version: {v}
change: {{by: ops, why: "w{v}"}}
sets:
  a: {{url: "http://127.0.0.1:{port}", state: ready}}
  b: {{url: "http://127.0.0.1:{port}", state: drain, max_inflight: 7}}
default: {{weights: {{a: {a}, b: {b}}}}}
{more}"""
ROLLOUT = "rollout: {set: b, steps: [{weight: 10, hold: 10m}]}\n"


class Admin:
    """Asks as somebody on this machine."""

    def __init__(self, conductor: falcon.testing.ASGIConductor) -> None:
        self._conductor = conductor

    async def get(self, path: str) -> falcon.testing.Result:
        return await self.ask("GET", path)

    async def post(self, path: str, body: dict[str, str]) -> falcon.testing.Result:
        return await self.ask("POST", path, json=body)

    async def ask(self, method: str, path: str, **more: Any) -> falcon.testing.Result:
        result: falcon.testing.Result = await self._conductor.simulate_request(
            method, path, host="localhost", **more
        )
        return result


@asynccontextmanager
async def running(
    tmp_path: Path, *, more: str = "", state: bool = True
) -> AsyncIterator[tuple[Router, Admin, Path]]:
    async with a_set_that_answers() as port:
        file = tmp_path / "router.yaml"
        file.write_text(YAML.format(v=1, a=95, b=5, port=port, more=more))
        settings = Settings(file, name="r1", state_dir=tmp_path / "state" if state else None)
        router = Router(settings, asyncio.get_running_loop())
        sock = socket.create_server(("127.0.0.1", 0))
        router.start(sock)
        try:
            async with falcon.testing.ASGIConductor(create_app(router)) as admin:
                yield router, Admin(admin), file
        finally:
            await router.stop(at_once=True)


def edit(file: Path, **fields: object) -> None:
    text = file.read_text()
    port = text.partition("127.0.0.1:")[2].partition('"')[0]
    file.write_text(YAML.format(**{"v": 2, "a": 95, "b": 5, "port": port, "more": ""} | fields))


async def test_status_tells_weights_health_and_figures(tmp_path: Path) -> None:
    async with running(tmp_path) as (router, admin, file):
        for _ in range(8):
            router.plane.traffic.stats["a"].note_answer(200, 0.010)
        router.plane.traffic.stats["a"].note_answer(502, 0.5)
        status: dict[str, Any] = (await admin.get("/status")).json
        assert (status["version"], status["change"]) == (1, {"by": "ops", "why": "w1"})
        assert status["file"] == str(file)
        a, b = status["sets"]["a"], status["sets"]["b"]
        assert (a["weight"], a["effective_weight"], b["weight"], b["effective_weight"]) == (
            95.0,
            100.0,
            5.0,
            0.0,
        )
        assert (b["state"], b["max_inflight"], b["inflight"]) == ("drain", 7, 0)
        assert a["error_rate"] == pytest.approx(1 / 9, rel=0.001)
        assert a["p50_ms"] == pytest.approx(10, rel=0.2)
        assert a["p99_ms"] == pytest.approx(500, rel=0.2)
        assert (b["error_rate"], b["p50_ms"], b["requests_per_s"]) == (None, None, 0.0)


async def test_metrics_tell_the_weight_in_force_and_what_counts_now(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, admin, _file):
        text = (await admin.get("/metrics")).text
        assert 'gc_router_set_weight_percent{set="b"} 5.0' in text
        assert 'gc_router_set_effective_weight_percent{set="a"} 100.0' in text
        assert 'gc_router_set_effective_weight_percent{set="b"} 0.0' in text


async def test_history_lists_and_gives_every_version(tmp_path: Path) -> None:
    async with running(tmp_path) as (router, admin, file):
        first = file.read_bytes()
        edit(file, v=2, a=90, b=10)
        assert await router.reload()
        listed = (await admin.get("/history")).json
        assert [(c["version"], c["by"], c["why"]) for c in listed["changes"]] == [
            (1, "ops", "w1"),
            (2, "ops", "w2"),
        ]
        assert listed["digest"] == listed["changes"][1]["digest"] == router.plane.traffic.table.digest
        for version, content in (("1", first), ("previous", first), ("live", file.read_bytes())):
            answer = await admin.get(f"/history/{version}")
            assert answer.content == content
        missing = await admin.get("/history/9")
        assert missing.status_code == 404
        assert "known: 2, 1" in missing.json["detail"]


async def test_after_a_restart_earlier_tables_are_known(tmp_path: Path) -> None:
    async with running(tmp_path) as (router, _, file):
        edit(file, a=0, b=100)
        assert await router.reload()
    again = Router(Settings(file, name="r1", state_dir=tmp_path / "state"), asyncio.get_running_loop())
    assert len(again.plane.traffic.earlier) == 1
    await again.stop(at_once=True)


async def test_orders_reach_the_rollout_and_what_does_not_fit_is_a_conflict(tmp_path: Path) -> None:
    more = ROLLOUT
    async with running(tmp_path, more=more) as (router, admin, file):
        edit(file, v=2, a=100, b=0, more=more)
        file.write_text(file.read_text().replace("state: drain", "state: ready"))
        assert await router.reload()
        answer = await admin.post("/rollout/pause", {})
        assert answer.status_code == 409
        assert answer.json["detail"]
        answer = await admin.post("/rollout/start", {"by": "jo", "why": "new"})
        assert answer.status_code == 200
        assert answer.json["set"] == "b"
        assert (await admin.get("/rollout")).json["phase"] == answer.json["phase"]
        assert any(event["by"] == "jo" for event in answer.json["events"])


async def test_an_order_for_another_moment_is_a_conflict_and_a_plan_is_told_before_a_start(
    tmp_path: Path,
) -> None:
    more = "rollout: {set: b, steps: [{weight: 10, hold: 10m}, {weight: 50, hold: 1h}]}\n"
    async with running(tmp_path, more=more) as (router, admin, file):
        edit(file, v=2, a=100, b=0, more=more)
        assert "takes no new work" in (await admin.get("/rollout")).json["next"]["refused"]
        file.write_text(file.read_text().replace("state: drain", "state: ready"))
        assert await router.reload()
        # What was answered since counts as the rate.
        router.plane.traffic.recent = Recent()
        router.plane.traffic.recent.tick(router.plane.loop.time() - 10, router.plane.traffic.stats)
        for _ in range(50):
            router.plane.traffic.stats["a"].note_answer(200, 0.010)
        seen = (await admin.get("/rollout")).json
        assert [step["weight"] for step in seen["next"]["steps"]] == [10.0, 50.0]
        assert seen["next"]["requests_per_s"] == pytest.approx(5, rel=0.2)
        other = {"if": {"run": seen["run"], "event": seen["event"], "plan": "0123"}}
        answer = await admin.ask("POST", "/rollout/start", json=other)
        assert (answer.status_code, answer.json["title"]) == (409, "The rollout went on")
        meant = {"if": {"run": seen["run"], "event": seen["event"], "plan": seen["next"]["plan"]}}
        started = await admin.ask("POST", "/rollout/start", json=meant)
        assert started.json["phase"] == "holding"
        assert (await admin.get("/rollout")).json["next"] is None
        for verb in ("skip", "promote"):
            answer = await admin.ask("POST", f"/rollout/{verb}", json={"if": {"step": 2}})
            assert answer.status_code == 409
            assert (
                "given for step 2, but by now the rollout of b is holding, at step 1 of 2"
                in answer.json["detail"]
            )
        assert (await admin.ask("POST", "/rollout/skip", json={"if": {"stp": 1}})).status_code == 400
        now = started.json
        good = {"if": {"run": now["run"], "event": now["event"]}}
        assert (await admin.ask("POST", "/rollout/promote", json=good)).json["phase"] == "done"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/rollout/explode", b"{}", 404),
        ("POST", "/rollout/start", b"[]", 400),
        ("POST", "/rollout/start", b"{", 400),
        ("POST", "/rollout/start", b'{"bye": 1}', 400),
        ("POST", "/rollout/start", b'{"by": "' + b"x" * 20_000 + b'"}', 413),
        ("GET", "/rollout/start", b"", 405),
        ("POST", "/status", b"", 405),
        ("GET", "/nothing", b"", 404),
        ("GET", "/history/..%2f..%2fetc%2fpasswd", b"", 404),
    ],
)
async def test_what_is_wrong_is_a_problem_with_words(
    tmp_path: Path, method: str, path: str, body: bytes, status: int
) -> None:
    async with running(tmp_path) as (_, admin, _file):
        headers = {"Content-Type": "application/json"} if body else {}
        answer = await admin.ask(method, path, body=body, headers=headers)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-router"] == "r1"
        assert (answer.json["status"], answer.json["executed"]) == (status, False)
        assert answer.json["detail"]


async def test_without_a_state_folder_there_is_no_history_and_no_rollout(tmp_path: Path) -> None:
    async with running(tmp_path, state=False) as (_, admin, _file):
        for path in ("/history", "/history/1", "/rollout"):
            answer = await admin.get(path)
            assert answer.status_code == 404
            assert "state folder" in answer.json["detail"]


async def test_an_order_onto_a_set_that_is_down_takes_force(tmp_path: Path) -> None:
    async with running(tmp_path, more=ROLLOUT) as (router, admin, file):
        edit(file, v=2, a=100, b=0, more=ROLLOUT)
        text = file.read_text().replace("state: drain", "state: ready")
        file.write_text(text.replace(text.split('"')[3], f"http://127.0.0.1:{free_port()}"))
        assert await router.reload()
        await eventually(lambda: not router.plane.traffic.board.of("b").alive())
        told = (await admin.get("/rollout")).json["next"]["refused"]
        assert "set 'b' takes no new requests: it is refused" in told
        answer = await admin.ask("POST", "/rollout/start", json={})
        assert (answer.status_code, answer.json["title"]) == (409, NEEDS_FORCE)
        assert answer.json["detail"] == told
        answer = await admin.ask("POST", "/rollout/start", json={"force": True})
        assert (answer.status_code, answer.json["phase"]) == (200, "holding")
