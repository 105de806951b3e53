"""From measurements to the table's lines: ratios within rounds, targets on both sides."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.bench.figures import Figure
from ops.bench.stack import BenchFailed
from ops.bench_router import __main__ as command
from ops.bench_router import bodies, delay, idle, small
from ops.bench_router.bench import Bench, ratio, turns
from ops.bench_router.load import Shot
from ops.bench_router.soak import Seen
from ops.bench_router.soak import figures as soak_figures


def shots(*pairs: tuple[float, float]) -> list[Shot]:
    """One for each round: per second (and MB/s), CPU µs (and p50; p99 of a window twice, of all nine times that)."""
    return [Shot(1000, speed, speed, cpu, cpu, cpu * 9, cpu * 9, cpu * 2) for speed, cpu in pairs]


def by_name(figures: Iterator[Figure]) -> dict[str, Figure]:
    return {figure.what: figure for figure in figures}


def test_ratios_are_taken_within_a_round() -> None:
    # The machine was half as fast in the second round, for both.
    assert ratio([10, 5, 9], [20, 10, 30]) == 0.5


def test_each_round_begins_with_another() -> None:
    assert [names for _, names in turns(["a", "b", "c"], 4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


def test_small_requests_beside_each_peer() -> None:
    of_get = {
        "router": shots((600, 34)),
        "nginx": shots((1000, 20)),
        "haproxy": shots((1000, 1)),
        "envoy": shots((500, 34)),
        "caddy": shots((200, 100)),
    }
    found = by_name(small.figures({"GET": of_get}))
    assert found["small GET: CPU per request, of nginx"].good
    assert found["small GET: requests/s on one core, of nginx"].good
    # Below means below.
    assert not found["small GET: CPU per request, of envoy"].good
    assert found["small GET: CPU per request, of caddy"].text == "0.34 ×"
    assert len(found) == 4, "Traefik was not there, and of HAProxy no target speaks"


def test_bodies_beside_each_peer() -> None:
    of_post = {
        "router": shots((1090, 100)),
        "nginx-unbuffered": shots((1000, 100)),
        "haproxy-splice": shots((1200, 60)),
    }
    found = by_name(bodies.figures({"POST": of_post}))
    assert [figure.good for figure in found.values()] == [False, True, True, False]


def test_added_latency_is_that_above_the_upstream_alone() -> None:
    found = list(
        delay.figures({"upstream": shots((1, 50)), "nginx": shots((1, 70)), "router": shots((1, 81))})
    )
    assert [figure.text for figure in found] == ["1.55 ×", "1.55 ×"]
    assert not found[0].good
    assert found[1].what == "half load: p99 of a quarter of a second added (62 µs), of nginx"
    # Nothing added by nginx is noise, not a division by nothing.
    found = list(
        delay.figures({"upstream": shots((1, 50)), "nginx": shots((1, 50)), "router": shots((1, 51))})
    )
    assert found[0].value == 1.0


def test_idle_connections() -> None:
    found = list(idle.figures({"without": shots((1, 100)), "with": shots((1, 111))}, [90.0, 101.0]))
    assert [(figure.text, figure.good) for figure in found] == [("101 MiB", False), ("1.11 ×", False)]


def test_the_soak_counts_what_failed_doubled_and_was_lost() -> None:
    counts = {"reload": 200, "set": 20, "worker": 5}
    seen = Seen(answered={"get": 90, "async": 4}, failed={"get: answered 503": 1})
    found = list(soak_figures(seen, Counter({"n1": 1, "n2": 3, "n3": 1}), counts))
    assert [figure.text for figure in found] == ["1", "2", "1"]
    assert not any(figure.good for figure in found)
    assert found[0].what == "95 requests through 200 reloads, 20 set restarts, 5 worker restarts: failed"
    clean = soak_figures(Seen(answered={"async": 2}), Counter(n1=1, n2=1), counts)
    assert all(figure.good for figure in clean)


class _NoBench:
    def __init__(self, say: object) -> None:
        pass

    def __enter__(self) -> _NoBench:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def test_the_command_prints_the_table_and_writes_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    factors = []

    def part(bench: Bench, factor: float) -> Iterator[Figure]:
        factors.append(factor)
        yield Figure("what", 2.0, "2.00 ×", "≤ 1 ×", False)

    monkeypatch.setattr(command, "Bench", _NoBench)
    monkeypatch.setattr(command, "PARTS", {"small": (part, "small"), "soak": (part, "soak")})
    path = tmp_path / "figures.json"
    assert command.main(["soak", "--rounds", "0.5", "--json", str(path)]) == 1
    assert "| what | 2.00 × | ≤ 1 × | **short** |" in capsys.readouterr().out
    assert json.loads(path.read_text())[0]["value"] == 2.0
    assert factors == [0.5]
    assert command.main([]) == 1
    assert factors == [0.5, 1.0, 1.0]


def test_a_part_that_cannot_be_measured_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(bench: Bench, factor: float) -> Iterator[Figure]:
        if factor:
            raise BenchFailed("wrk is missing")
        yield from ()

    def part(bench: Bench, factor: float) -> Iterator[Figure]:
        yield Figure("what", 1.0, "1.00 ×", "≤ 1 ×", True)

    monkeypatch.setattr(command, "Bench", _NoBench)
    monkeypatch.setattr(command, "PARTS", {"small": (broken, "small"), "soak": (part, "soak")})
    assert command.main([]) == 2
    told = capsys.readouterr()
    assert "small: wrk is missing" in told.err
    assert "| what | 1.00 × | ≤ 1 × | ok |" in told.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["smal"], "no part is named smal"), (["--rounds", "0"], "above 0"), (["--rounds", "nan"], "above 0")],
)
def test_slips_are_named(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert words in capsys.readouterr().err
