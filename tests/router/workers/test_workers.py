"""Several workers as processes: one address, one answer, and nobody hurt when one of them dies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

from tests.router.rig import Client, eventually
from tests.router.test_server import GET, Process, router, sets, yaml

WORKERS = 3
SLOW_WORK = b"POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
WITH_USER = b"GET /x HTTP/1.1\r\nHost: h\r\nX-User-Id: u%d\r\n\r\n"


async def spread(running: Process, count: int = 60) -> list[Client]:
    """Make so many connections that each worker almost certainly has some."""
    return [await running.client() for _ in range(count)]


async def post(running: Process, path: str) -> dict[str, object]:
    client = Client(*await asyncio.open_connection("127.0.0.1", running.admin_port))
    try:
        answer = await client.ask(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode()
        )
        assert answer.status == 200, answer.body
        return dict(json.loads(answer.body))
    finally:
        client.close()


async def test_one_router_whoever_answers(tmp_path: Path) -> None:
    config, state = tmp_path / "router.yaml", tmp_path / "state"
    async with sets("a", "b") as fakes:
        ports = {name: fake.port for name, fake in fakes.items()}
        config.write_text(yaml(ports, 1, {"a": 50, "b": 50}))
        async with router(config, state, workers=WORKERS) as running:
            assert len(running.workers()) == WORKERS

            # Everybody makes the same choice for the same key.
            clients = await spread(running)
            for user in range(5):
                chosen = {(await client.ask(WITH_USER % user)).headers["x-set"] for client in clients}
                assert len(chosen) == 1, user

            # Each admin connection may be another worker's; all tell of all.
            told = [await running.status() for _ in range(8)]
            assert {each["requests"] for each in told} == {300}
            assert {each["connections"] for each in told} == {60}
            assert all(each["missing"] == [] for each in told)
            metrics = (await running.admin("/metrics")).body.decode()
            assert "gc_router_requests_total 300.0" in metrics
            assert f"gc_router_workers {float(WORKERS)}" in metrics
            assert "gc_router_workers_missing 0.0" in metrics

            # A changed file reaches all, also by a signal; the digest is told once all have it.
            config.write_text(yaml(ports, 2, {"a": 0, "b": 100}))
            running.process.send_signal(signal.SIGHUP)
            for _ in range(200):
                status = await running.status()
                if status["version"] == 2 and status["digest"]:
                    break
                await asyncio.sleep(0.05)
            assert {(await client.ask(GET)).headers["x-set"] for client in clients} == {"b"}
            lines = (state / "r9.history" / "live.jsonl").read_text().splitlines()
            assert [json.loads(line)["version"] for line in lines] == [1, 2]

            # A stop finishes what runs, in every worker.
            slow = clients[:12]
            for client in slow:
                await client.send(GET.replace(b"/x", b"/slow"))
            await eventually(lambda: sum(b"/slow" in head for head, _ in fakes["b"].requests) == len(slow))
            running.process.terminate()
            assert {(await client.answer()).status for client in slow} == {200}
            assert await running.process.wait() == 0


async def test_a_dead_worker_hurts_its_own_connections_alone(tmp_path: Path) -> None:
    config = tmp_path / "router.yaml"
    async with sets("a") as fakes:
        config.write_text(yaml({"a": fakes["a"].port}, 1, {"a": 100}))
        async with router(config, tmp_path / "state", workers=WORKERS) as running:
            clients = await spread(running)
            for client in clients:
                await client.ask(GET)
            before = (await running.status())["requests"]
            assert before == len(clients)
            await running.admin("/metrics")  # What was told is kept.
            victim = running.workers()[1]
            os.kill(victim, signal.SIGKILL)
            alive = 0
            for client in clients:
                try:
                    alive += (await client.ask(GET)).status == 200
                except (asyncio.IncompleteReadError, ConnectionError):
                    continue
            # The kernel spreads clients as it likes: the victim may have had none.
            assert alive > 0
            assert (await running.ask()).status == 200
            status = await running.until(workers=WORKERS, missing=[])
            assert victim not in running.workers()
            assert status["requests"] >= before + alive


async def test_a_worker_that_hangs_is_named(tmp_path: Path) -> None:
    config = tmp_path / "router.yaml"
    async with sets("a") as fakes:
        config.write_text(yaml({"a": fakes["a"].port}, 1, {"a": 100}))
        async with router(config, tmp_path / "state", workers=WORKERS) as running:
            await running.admin("/metrics")
            victim = running.workers()[-1]
            os.kill(victim, signal.SIGSTOP)
            try:
                status = {}
                for _ in range(30):  # The kernel may give the question to the one that hangs.
                    try:
                        async with asyncio.timeout(2):
                            status = await running.status()
                            break
                    except TimeoutError:
                        continue
                assert status["workers"] == WORKERS - 1
                assert len(status["missing"]) == 1
                assert status["digest"] == ""
            finally:
                os.kill(victim, signal.SIGCONT)
            await running.until(workers=WORKERS, missing=[])


async def test_max_inflight_counts_for_all_workers(tmp_path: Path) -> None:
    config = tmp_path / "router.yaml"
    async with sets("a") as fakes:
        config.write_text(yaml({"a": fakes["a"].port}, 1, {"a": 100}).replace('"}', '", max_inflight: 5}'))
        async with router(config, tmp_path / "state", workers=WORKERS) as running:
            clients = await spread(running, 40)
            answers = await asyncio.gather(*(client.ask(SLOW_WORK) for client in clients))
            done = [answer.status for answer in answers].count(200)
            # Requests that look at the very same moment may be one too many for each other worker.
            assert 5 <= done <= 5 + WORKERS - 1
            assert {
                answer.problem["type"].rpartition("/")[2] for answer in answers if answer.status != 200
            } == {"router-sets-full"}
            assert (await running.status())["sets"]["a"]["max_inflight"] == 5


async def test_orders_of_a_rollout_reach_all_workers(tmp_path: Path) -> None:
    config = tmp_path / "router.yaml"
    async with sets("a", "b") as fakes:
        ports = {name: fake.port for name, fake in fakes.items()}
        config.write_text(
            yaml(ports, 1, {"a": 100, "b": 0})
            + "rollout: {set: b, steps: [{weight: 50, hold: 10m}, {weight: 100, hold: 10m}]}\n"
        )
        async with router(config, tmp_path / "state", workers=WORKERS) as running:
            clients = await spread(running)
            assert {(await client.ask(GET)).headers["x-set"] for client in clients} == {"a"}
            await post(running, "/rollout/start")
            # In force everywhere when the answer is there.
            assert (await running.status())["sets"]["b"]["effective_weight"] == 50
            await post(running, "/rollout/skip")
            assert {(await client.ask(GET)).headers["x-set"] for client in clients} == {"b"}
            told = [json.loads((await running.admin("/rollout")).body) for _ in range(6)]
            assert {each["phase"] for each in told} == {"holding"}
            assert {each["leader"] for each in told} == {True}
            metrics = (await running.admin("/metrics")).body.decode()
            assert 'gc_router_rollout_phase{phase="holding"} 1.0' in metrics
            assert 'gc_router_rollout_weight_percent{set="b"} 100.0' in metrics
            assert "gc_router_rollout_step 2.0" in metrics
            await post(running, "/rollout/abort")
            assert {(await client.ask(GET)).headers["x-set"] for client in clients} == {"a"}


async def test_two_routers_that_share_a_folder_count_each_for_itself(tmp_path: Path) -> None:
    """Those that release together have the same --state-dir and --name, and workers that ask each other."""
    config, state = tmp_path / "router.yaml", tmp_path / "state"
    async with sets("a") as fakes:
        config.write_text(yaml({"a": fakes["a"].port}, 1, {"a": 100}))
        async with router(config, state, workers=2) as first:
            clients = await spread(first, 20)
            for client in clients:
                await client.ask(GET)
            async with router(config, state, workers=2) as second:
                for client in await spread(second, 20):
                    for _ in range(2):
                        await client.ask(GET)
                for _ in range(8):  # Whichever worker answers.
                    for each, total in ((first, 20), (second, 40)):
                        status = await each.status()
                        assert (status["requests"], status["workers"], status["missing"]) == (total, 2, [])
            # One that ends takes nothing of the other's with it, nor does one that starts.
            async with router(config, state, workers=2) as third:
                assert (await third.status())["requests"] == 0
                assert {(await first.status())["requests"] for _ in range(6)} == {20}
