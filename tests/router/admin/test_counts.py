"""Counts of several workers, kept over their deaths."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from router.admin.counts import Counts, Keeper, SetCounts, added, counts_of, put_back
from router.admin.metrics import metrics_text
from router.admin.status import snapshot
from router.assembly import Router, Settings
from router.counting.tally import Outcome, Tally
from tests.router.rig import free_port

YAML = """
version: 3
sets: {{a: {{url: "http://127.0.0.1:{port}", max_inflight: 9}}}}
default: {{weights: {{a: 100}}}}
"""


def a_router(tmp_path: Path) -> Router:
    file = tmp_path / "r.yaml"
    file.write_text(YAML.format(port=free_port()))
    return Router(Settings(file, state_dir=tmp_path / "s"), asyncio.get_running_loop())


async def test_a_worker_counts_on_from_its_predecessor(tmp_path: Path) -> None:
    router = a_router(tmp_path)
    router.plane.requests = 12
    router.plane.traffic.note_cancelled()
    router.plane.traffic.retries.refuse()
    router.plane.traffic.log.count_on(lines=5, sampled_out=6, errors_dropped=7, lost=8)
    router.plane.traffic.problems.note("no-set")
    router.plane.traffic.stats["a"].note_answer(200, 0.02)
    router.plane.traffic.stats["a"].note_answer(502, 400.0)
    keeper = Keeper(tmp_path / "0.counts")
    assert keeper.read(router.group.boot) is None
    counts = counts_of(router)
    keeper.write(msgspec.json.encode(counts))
    assert keeper.read(router.group.boot) == counts
    assert keeper.read("another boot") is None

    after = a_router(tmp_path)
    put_back(after, counts)
    after.plane.traffic.stats["a"].note_answer(200, 0.02)
    told = counts_of(after)
    assert told.plain == counts.plain
    named = ("requests", "cancelled", "retries_over_budget", "access_log_lines", "access_log_lost")
    assert [told.plain[name] for name in named] == [12, 1, 1, 5, 8]
    assert told.problems == {"no-set": 1}
    assert told.sets["a"].statuses == {200: 2, 502: 1}
    assert after.plane.traffic.stats["a"].latency[-1] == 1
    # What was before is no traffic of this half minute.
    assert (
        after.plane.traffic.recent.window(
            "a", after.plane.loop.time() + 1, after.plane.traffic.stats["a"]
        ).answers
        == 1
    )

    (tmp_path / "0.counts").write_bytes(b"{broken")
    assert keeper.read(router.group.boot) is None


def test_workers_add_up() -> None:
    canary = Tally()
    canary.note(Outcome.OK, 5000.0)
    one = Counts(
        starts=2, plain={"requests": 3}, reloads=4, stint=7, canary=canary,
        sets={"a": SetCounts({200: 3}, {"reset": 1}, {5: 3}, 0.5)},
    )  # fmt: skip
    two = msgspec.json.decode(msgspec.json.encode(one), type=Counts)
    two.sets["b"] = SetCounts({503: 1})
    old = Counts(stint=6, canary=canary, reloads=9)
    sum_ = added([one, two, old])
    assert (sum_.starts, sum_.plain, sum_.reloads) == (5, {"requests": 6}, 9)
    assert sum_.sets["a"] == SetCounts({200: 6}, {"reset": 2}, {5: 6}, 1.0)
    assert sum_.sets["b"] == SetCounts({503: 1})
    assert (sum_.stint, sum_.canary.ok) == (7, 2)  # Another stint's are of another weight.
    assert one.sets["a"].statuses == {200: 3}


async def test_metrics_of_all_are_text_that_prometheus_reads(tmp_path: Path) -> None:
    router = a_router(tmp_path)
    router.plane.traffic.stats["a"].note_answer(200, 0.02)
    router.plane.traffic.stats["a"].note_answer(200, 0.4)
    rollout = router.rollout
    assert rollout is not None
    mine = snapshot(router)
    counts = added([counts_of(router), counts_of(router)])
    text = metrics_text([mine, mine], counts, [2], rollout.status()).decode()
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert all(name.startswith("gc_router_") for name, *_ in found)
    assert found["gc_router_answers_total", "200", "a"] == 4
    assert found["gc_router_answer_seconds_bucket", "0.025", "a"] == 2
    assert found["gc_router_answer_seconds_bucket", "+Inf", "a"] == 4
    assert found["gc_router_answer_seconds_count", "a"] == 4
    assert (found["gc_router_workers",], found["gc_router_workers_missing",]) == (2, 1)
    assert found["gc_router_set_max_inflight", "a"] == 9
    assert found["gc_router_config_version",] == 3
    assert found["gc_router_rollout_phase", "idle"] == 1
    assert found["gc_router_rollout_phase", "aborting"] == 0
    assert found["gc_router_rollout_verdict", "pass"] == 0
    assert "gc_router_rollout_weight_percent{" not in text  # No canary.


async def test_metrics_tell_how_long_a_pause_waits_and_what_is_open(tmp_path: Path) -> None:
    router = a_router(tmp_path)
    rollout = router.rollout
    assert rollout is not None
    status = rollout.status() | {
        "comparing": True,
        "paused_s": 1200.0,
        "waited_s": 7.0,
        "open": {"canary": {"requests": 3, "oldest_s": 42.0}, "control": {"requests": 0, "oldest_s": None}},
    }
    text = metrics_text([snapshot(router)], counts_of(router), [], status).decode()
    for line in (
        "gc_router_rollout_paused_seconds 1200.0",
        "gc_router_rollout_waited_seconds 7.0",
        'gc_router_rollout_open_requests{side="canary"} 3.0',
        'gc_router_rollout_oldest_open_seconds{side="canary"} 42.0',
        'gc_router_rollout_oldest_open_seconds{side="control"} 0.0',
    ):
        assert line in text


async def test_metrics_tell_of_no_open_request_once_the_rollout_has_ended(tmp_path: Path) -> None:
    router = a_router(tmp_path)
    rollout = router.rollout
    assert rollout is not None
    at_the_abort = {side: {"requests": 19, "oldest_s": 5.8} for side in ("canary", "control")}
    status = rollout.status() | {"open": at_the_abort}
    assert not status["comparing"]
    text = metrics_text([snapshot(router)], counts_of(router), [], status).decode()
    for side in ("canary", "control"):
        assert f'gc_router_rollout_open_requests{{side="{side}"}} 0.0' in text
        assert f'gc_router_rollout_oldest_open_seconds{{side="{side}"}} 0.0' in text


@pytest.mark.parametrize(
    ("healths", "up"),
    [
        (("up", "up"), 1.0),
        (("slow start", "up"), 1.0),  # Chosen, if slowly: a restart alarms nobody.
        (("ejected", "slow start"), 0.5),
        (("down", "refused"), 0.0),
        (("draining", "draining"), 0.0),
    ],
)
async def test_a_set_is_up_where_it_is_chosen(tmp_path: Path, healths: tuple[str, str], up: float) -> None:
    router = a_router(tmp_path)
    mine = snapshot(router)
    seen = [
        msgspec.structs.replace(
            mine, sets={"a": msgspec.structs.replace(mine.sets["a"], health=health, reading=2)}
        )
        for health in healths
    ]
    text = metrics_text(seen, counts_of(router), [], None).decode()
    assert f'gc_router_set_up{{set="a"}} {up}' in text
    assert 'gc_router_set_reading{set="a"} 4.0' in text
    assert 'gc_router_set_inflight{set="a"} 0.0' in text
