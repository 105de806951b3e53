"""Requests that tell an operator most, and no secret."""

from __future__ import annotations

import msgspec
import pytest

from router.choosing.choice import Choice
from router.counting.tally import Answered, Outcome, Tally, total
from router.counting.witnesses import Kind, Witness, path_of, telling
from router.wire.failure import Failure
from tests.router.counting.heads import head_of
from tests.router.counting.test_observer import HALF, OK, SETS, observer
from tests.router.counting.test_shares import of_key


def asked(
    number: int, home: str = "b", path: bytes = b"/v1/run/ocr:1", image: str | None = "ocr:1"
) -> Choice:
    made = of_key(home, number)
    made.head = head_of(f"192.0.2.{number % 250}", image=image, request_id=b"id-%d" % number, path=path)
    return made


def ids(tally: Tally, *kinds: Kind) -> list[str]:
    return [each.id for each in tally.witnesses if each.kind in kinds]


def test_the_last_failures_the_slowest_and_the_longest_waiting_are_kept() -> None:
    seen = observer()
    for number in range(10):
        seen.failed(asked(number), SETS["b"], Failure.RESET, 0.1)
        seen.answered(asked(100 + number), SETS["b"], Answered(Outcome.TASK_FAILED, 422), 0.1)
        seen.answered(asked(200 + number), SETS["b"], OK, 1.0 + (number * 7 % 10) / 10)
        seen.began(asked(300 + number), SETS["b"], float(number))
    canary, control = seen.seen(100.0)
    assert ids(canary, Kind.ERROR) == ["id-9", "id-8", "id-7"]
    assert ids(canary, Kind.TASK) == ["id-109", "id-108", "id-107"]
    assert ids(canary, Kind.SLOW) == ["id-207", "id-204", "id-201"]
    assert ids(canary, Kind.OPEN) == ["id-300", "id-301", "id-302"]
    assert control.witnesses == ()
    first = canary.witnesses[0]
    assert first == Witness(Kind.ERROR, "id-9", "b", "reset", 0.1, "POST /v1/run/…", "ocr:1")


def test_a_request_that_only_just_began_is_no_witness() -> None:
    seen = observer()
    seen.began(asked(1), SETS["b"], 98.5)
    seen.began(asked(2), SETS["b"], 97.9)
    assert ids(seen.seen(100.0)[0], Kind.OPEN) == ["id-2"]


def test_control_is_asked_for_no_witness() -> None:
    seen = observer()
    seen.failed(asked(1, "a"), SETS["a"], Failure.RESET, 0.1)
    assert [each.witnesses for each in seen.seen(1.0)] == [(), ()]


def test_the_next_stint_has_its_own() -> None:
    seen = observer()
    seen.failed(asked(1), SETS["b"], Failure.RESET, 0.1)
    seen.watch(2, "b", HALF)
    assert seen.seen(1.0)[0].witnesses == ()


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/v1/run/acme/ocr:1", "/v1/run/…"),
        ("/x", "/x"),
        ("/x/y", "/x/y"),
        ("/", "/"),
        ("/ugc/secret-token/file", "/ugc/secret-token/…"),
        ("/" + "a" * 500, "/" + "a" * 58 + "…"),
        ("/a\x1b[31m", "/a?[31m"),
    ],
)
def test_a_path_is_cut_off_and_printable(path: str, shown: str) -> None:
    assert path_of(path) == shown


def test_workers_tell_together_and_the_telling_ones_are_chosen_by_turns() -> None:
    def one(kind: Kind, name: str, duration_s: float = 1.0) -> Witness:
        return Witness(kind, name, "b", "500", duration_s, "GET /x")

    first = Tally(witnesses=(one(Kind.ERROR, "e1"), one(Kind.SLOW, "s1", 2.0), one(Kind.OPEN, "o1", 5.0)))
    other = Tally(witnesses=(one(Kind.ERROR, "e2"), one(Kind.SLOW, "s2", 9.0), one(Kind.OPEN, "o2", 50.0)))
    found = total((first, other)).witnesses
    assert [each.id for each in telling(found, (Kind.ERROR, Kind.OPEN))] == ["e1", "o2", "e2"]
    assert [each.id for each in telling(found, (Kind.SLOW,))] == ["s2", "s1"]
    assert telling(found, (Kind.TASK,)) == ()
    assert msgspec.json.decode(msgspec.json.encode(found), type=tuple[Witness, ...]) == found
