"""What a call asks for and what the image's labels say become one task."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.errors import BadRequest, ImageUnusable
from scheduler.image import Image
from scheduler.task import Isolation, Kind, Resources, TaskSpec
from sets.api.call import RunCall, spec_of


def image(entrypoint: tuple[str, ...] = ("/cat",), **labels: str) -> Image:
    named = {"org.general-compute." + name.replace("_", "-"): value for name, value in labels.items()}
    return Image("cat:1", "sha256:00", "sha256:00", entrypoint=entrypoint, labels=named)


def spec(of: Image, kind: Kind = Kind.SYNC, **asked: Any) -> TaskSpec:
    return spec_of("acme", "cat:1", of, RunCall(**asked), kind)


def test_a_call_that_asks_for_nothing_gets_the_defaults() -> None:
    made = spec(image())
    assert (made.account, made.image, made.image_digest, made.kind) == (
        "acme",
        "cat:1",
        "sha256:00",
        Kind.SYNC,
    )
    assert (made.resources, made.isolation) == (Resources(100, 512), Isolation.SHARED)
    assert (made.timeout_s, spec(image(), Kind.ASYNC).timeout_s) == (60, 3600)
    assert not made.prestart


def test_a_set_whose_slots_are_never_shared_says_so_only_to_who_asks_for_it() -> None:
    def made(of: Image, **asked: Any) -> TaskSpec:
        return spec_of("acme", "cat:1", of, RunCall(**asked), Kind.SYNC, fresh_only=True)

    assert made(image()).isolation is Isolation.FRESH
    assert made(image(isolation="shared")).isolation is Isolation.FRESH
    assert made(image(), isolation=Isolation.FRESH).isolation is Isolation.FRESH
    with pytest.raises(BadRequest, match="every task in a new container") as refused:
        made(image(), isolation=Isolation.SHARED)
    assert refused.value.field == "isolation"


def test_labels_decide_where_the_call_says_nothing() -> None:
    labelled = image(isolation="fresh", prestart="1", cpu_features="avx2 fma")
    made = spec(labelled)
    assert (made.isolation, made.prestart, made.cpu_features) == (Isolation.FRESH, True, ("avx2", "fma"))
    asked = spec(labelled, isolation=Isolation.SHARED, prestart=False, cpu_features=("fma",))
    assert (asked.isolation, asked.prestart, asked.cpu_features) == (Isolation.SHARED, False, ("fma",))


@pytest.mark.parametrize(
    ("of", "kind", "asked", "field"),
    [
        (image(()), Kind.SYNC, {}, "arg"),
        (image(), Kind.SYNC, {"timeout_s": 300.5}, "timeout_s"),
        (image(), Kind.ASYNC, {"timeout_s": 86_400.5}, "timeout_s"),
        (image(), Kind.SYNC, {"retries": 1}, "retries"),
        (image(), Kind.SYNC, {"retry_exit_codes": (75,)}, "retry_exit_code"),
        (image(), Kind.ASYNC, {"retry_exit_codes": (75,)}, "retry_exit_code"),
    ],
)
def test_what_cannot_be_run_is_refused_by_its_field(
    of: Image, kind: Kind, asked: dict[str, Any], field: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        spec(of, kind, **asked)
    assert caught.value.field == field


def test_an_isolation_label_that_makes_no_sense_makes_the_image_unusable() -> None:
    with pytest.raises(ImageUnusable, match="neither shared nor fresh"):
        spec(image(isolation="none"))


def test_a_longer_sync_task_is_told_that_an_async_one_may_have_more() -> None:
    with pytest.raises(
        BadRequest, match="at most 300 for a synchronous task; an asynchronous one may have 86400"
    ):
        RunCall(timeout_s=301).timeout(Kind.SYNC)
    assert RunCall(timeout_s=300).timeout(Kind.SYNC) == 300
    assert RunCall(timeout_s=86_400).timeout(Kind.ASYNC) == 86_400


def test_exit_codes_are_a_set() -> None:
    made = spec(image(), Kind.ASYNC, retries=2, retry_exit_codes=(75, 74, 75))
    assert (made.retries, made.retry_exit_codes) == (2, (74, 75))
