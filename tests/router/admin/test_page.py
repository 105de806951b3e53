"""The status page's files, curves and promotion, asked without a browser."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import falcon.testing
import pytest

from router.admin.app import create_app
from router.admin.page import FOLDER
from router.admin.promote import promote
from router.assembly import Router, Settings
from router.rollout.orders import ANYHOW, Given
from router.rollout.states import NotAllowed
from tests.router.rig import a_set_that_answers

TOKEN = "0123456789abcdef0123"
STEPS = (
    "[{weight: 10, hold: 10m}, {pause: true}, "
    "{weight: 30, hold: 10m, gate: 'http://127.0.0.1:9/'}, {weight: 50, hold: 1h}]"
)
YAML = """
version: 1
sets:
  a: {{url: "http://127.0.0.1:{port}"}}
  b: {{url: "http://127.0.0.1:{port}"}}
default: {{weights: {{a: 100, b: 0}}}}
rollout: {{set: b, steps: {steps}}}
"""


@asynccontextmanager
async def admin(
    tmp_path: Path, token: str | None = None
) -> AsyncIterator[tuple[Router, falcon.testing.ASGIConductor]]:
    async with a_set_that_answers() as port:
        file = tmp_path / "router.yaml"
        file.write_text(YAML.format(port=port, steps=STEPS))
        settings = Settings(file, name="r1", state_dir=tmp_path / "state", admin_token=token)
        router = Router(settings, asyncio.get_running_loop())
        router.start(socket.create_server(("127.0.0.1", 0)))
        try:
            async with falcon.testing.ASGIConductor(create_app(router)) as conductor:
                yield router, conductor
        finally:
            await router.stop(at_once=True)


async def test_the_page_comes_with_headers_that_trust_nobody(tmp_path: Path) -> None:
    async with admin(tmp_path) as (_, conductor):
        names = [f"/page/{path.name}" for path in FOLDER.iterdir()]
        assert {"/page/main.js", "/page/page.css"} < set(names)
        for path in ("/", *names):
            answer = await conductor.simulate_get(path, host="localhost")
            assert answer.status_code == 200
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert "*" not in policy
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"


def test_the_files_ask_nobody_else_and_make_no_markup_from_text() -> None:
    for path in FOLDER.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|['\"(]//", text), path.name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text
        )
        assert not re.search(r"<script(?![^>]*\bsrc=)|\bstyle=|\son[a-z]+=", text), path.name


@pytest.mark.parametrize(
    "path",
    ["/page/", "/page/app.py", "/page/..%2fapp.py", "/page/../app.py", "/page/%2e%2e/access.py", "/page/a/b"],
)
async def test_no_other_file_comes(tmp_path: Path, path: str) -> None:
    async with admin(tmp_path) as (_, conductor):
        assert (await conductor.simulate_get(path, host="localhost")).status_code == 404


async def test_the_page_needs_no_token_and_what_it_shows_does(tmp_path: Path) -> None:
    async with admin(tmp_path, TOKEN) as (_, conductor):
        for path in ("/", "/page/main.js", "/page/page.css"):
            assert (await conductor.simulate_get(path)).status_code == 200
        for path in ("/status", "/curves", "/rollout"):
            assert (await conductor.simulate_get(path)).status_code == 401
            own = {"Authorization": f"Bearer {TOKEN}"}
            assert (await conductor.simulate_get(path, headers=own)).status_code == 200
        for path in ("/", "/page/main.js", "/rollout/start", "/rollout/promote"):
            assert (await conductor.simulate_post(path, json={})).status_code == 401


async def test_without_a_token_a_foreign_name_gets_no_page(tmp_path: Path) -> None:
    async with admin(tmp_path) as (_, conductor):
        for path in ("/", "/page/main.js", "/curves"):
            assert (await conductor.simulate_get(path, host="evil.example")).status_code == 403


@pytest.mark.parametrize("verb", ["start", "promote", "abort"])
async def test_another_site_orders_nothing(tmp_path: Path, verb: str) -> None:
    async with admin(tmp_path) as (router, conductor):
        for headers in (
            {"Origin": "http://evil.example", "Content-Type": "application/json"},
            {"Origin": "null", "Content-Type": "application/json"},
            {"Content-Type": "text/plain"},
            {"Content-Type": "application/x-www-form-urlencoded"},
        ):
            answer = await conductor.simulate_post(
                f"/rollout/{verb}", host="localhost", headers=headers, body="{}"
            )
            assert answer.status_code in (403, 415)
        assert router.rollout is not None
        assert router.rollout.status()["phase"] == "idle"


async def test_curves_tell_what_a_page_lacks(tmp_path: Path) -> None:
    async with admin(tmp_path) as (router, conductor):
        curves, stats = router.plane.traffic.curves, router.plane.traffic.stats
        now = router.plane.loop.time()
        # Ahead of the router's own ticks, so that none of them comes between.
        curves.tick(now + 100, stats)
        for _ in range(10):
            stats["a"].note_answer(200, 0.010)
        stats["a"].note_answer(502, 0.010)
        curves.tick(now + 105, stats)

        async def ask(**params: object) -> dict[str, Any]:
            answer = await conductor.simulate_get("/curves", host="localhost", params=params)
            assert answer.status_code == 200
            return dict(answer.json)

        first = await ask()
        (point,) = first["points"]
        assert (first["serial"], first["step_s"], point["serial"]) == (1, 5.0, 1)
        requests, errors, p50_ms, _, p99_ms = point["sets"]["a"]
        assert (requests, errors) == (11, 1)
        assert p50_ms == pytest.approx(10, rel=0.2)
        assert p99_ms >= p50_ms
        assert (await ask(boot=first["boot"], after=1))["points"] == []
        assert len((await ask(boot="another", after=1))["points"]) == 1
        wrong = await conductor.simulate_get("/curves", host="localhost", params={"after": "x"})
        assert wrong.status_code == 400


async def test_a_promotion_goes_through_pause_and_gate_to_the_last_weight(tmp_path: Path) -> None:
    async with admin(tmp_path) as (router, conductor):
        body = {"by": "jo", "why": "all is well"}

        async def post(verb: str) -> falcon.testing.Result:
            result: falcon.testing.Result = await conductor.simulate_post(
                f"/rollout/{verb}", host="localhost", json=body
            )
            return result

        assert (await post("promote")).status_code == 409  # Nothing is under way.
        assert (await post("start")).json["weight"] == 10.0
        answer = await post("promote")
        assert (answer.json["phase"], answer.json["weight"]) == ("done", 50.0)
        assert router.plane.traffic.table.default.shares == {"a": 5000, "b": 5000}
        skipped = [event for event in answer.json["events"] if event["kind"] == "skipped"]
        assert all("promoted: all is well" in event["text"] and event["by"] == "jo" for event in skipped)
        assert (await post("promote")).status_code == 409


async def test_a_promotion_ends_where_somebody_aborted() -> None:
    class Aborted:
        """Skips twice, then somebody else's abort has come."""

        def __init__(self) -> None:
            self.left = ["aborting", "holding", "holding"]
            self.given: list[Given] = []

        def status(self) -> dict[str, Any]:
            orders = ["abort"] if self.left[-1] == "aborting" else ["skip", "abort"]
            return {"phase": self.left[-1], "orders": orders, "of": 10, "run": 4}

        async def command(
            self, verb: str, by: str = "", why: str = "", *, force: bool = False, given: Given = ANYHOW
        ) -> dict[str, Any]:
            assert verb == "skip"
            self.given.append(given)
            self.left.pop()
            return self.status()

    control = Aborted()
    assert (await promote(control, given=Given(run=4, event=9)))["phase"] == "aborting"
    # The first skip is for what was seen; the others go on within that rollout.
    assert control.given == [Given(run=4, event=9), Given(run=4)]
    with pytest.raises(NotAllowed, match="aborting"):
        await promote(control)
