"""The caller's request for a run, and the task made of it and of the image's labels. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from scheduler.errors import BadRequest, ImageUnusable
from scheduler.image import LABEL_CPU_FEATURES, LABEL_ISOLATION, LABEL_PRESTART, Image
from scheduler.task import Isolation, Kind, Priority, Resources, TaskSpec

SYNC_TIMEOUT_MAX_S: Final = 300.0
ASYNC_TIMEOUT_MAX_S: Final = 86_400.0
SYNC_TIMEOUT_S: Final = 60.0
ASYNC_TIMEOUT_S: Final = 3600.0
RETRIES_MAX: Final = 20
"""How often a task may ask to be run again: a failure that persists must not keep cores busy for ever."""


class RunCall(msgspec.Struct, frozen=True):
    """The parameters of a run. None: the image's label decides, or else a default.

    `timeout_s` bounds the run, `queue_timeout_s` a sync task's wait for its slot. `stream`: output is sent from its
    first byte on.
    """

    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    name: str | None = None
    timeout_s: float | None = None
    queue_timeout_s: float = 10.0
    stream: bool = False
    cpu_percent: int = 100
    memory_mib: int = 512
    isolation: Isolation | None = None
    cpu_features: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    prestart: bool | None = None
    priority: Priority = Priority.NORMAL
    retries: int = 0
    retry_exit_codes: tuple[int, ...] = ()
    callback_url: str | None = None

    def timeout(self, kind: Kind) -> float:
        """The limit on the run time, in seconds. Raises `BadRequest` above the kind's own limit."""
        sync = kind is Kind.SYNC
        limit_s = SYNC_TIMEOUT_MAX_S if sync else ASYNC_TIMEOUT_MAX_S
        if self.timeout_s is None:
            return SYNC_TIMEOUT_S if sync else ASYNC_TIMEOUT_S
        if self.timeout_s > limit_s:
            which = f"a synchronous task; an asynchronous one may have {ASYNC_TIMEOUT_MAX_S:g}"
            raise BadRequest(
                f"timeout_s: at most {limit_s:g} for {which if sync else 'a task'}", field="timeout_s"
            )
        return self.timeout_s

    def check_retries(self, kind: Kind) -> None:
        """Raise `BadRequest` where the call asks for retries that no task has."""
        if kind is Kind.SYNC and (self.retries or self.retry_exit_codes):
            field = "retries" if self.retries else "retry_exit_code"
            raise BadRequest(
                f"{field}: a synchronous call is not run again, as its caller has the answer; leave it out, or send "
                "`Prefer: respond-async`",
                field=field,
            )
        if self.retry_exit_codes and not self.retries:
            raise BadRequest(
                "retry_exit_code: say with retries=1 or more how often the task is run again",
                field="retry_exit_code",
            )


def spec_of(
    account: str, reference: str, image: Image, call: RunCall, kind: Kind, *, fresh_only: bool = False
) -> TaskSpec:
    """The task that a call asks for; with `fresh_only` every task has a new container, whatever labels say.

    Raises `BadRequest`, and `ImageUnusable` for a label that makes no sense.
    """
    if not image.entrypoint and not image.cmd and not call.args:
        raise BadRequest("arg: the image has neither ENTRYPOINT nor CMD; say what to run", field="arg")
    call.check_retries(kind)
    features = call.cpu_features or tuple(image.labels.get(LABEL_CPU_FEATURES, "").split())
    return TaskSpec(
        account=account,
        image=reference,
        image_digest=image.digest,
        args=call.args,
        env=call.env,
        name=call.name,
        kind=kind,
        timeout_s=call.timeout(kind),
        resources=Resources(call.cpu_percent, call.memory_mib),
        isolation=_isolation(image, call, fresh_only),
        cpu_features=features,
        outputs=call.outputs,
        priority=call.priority,
        retries=call.retries,
        retry_exit_codes=tuple(sorted(set(call.retry_exit_codes))),
        callback_url=call.callback_url,
        prestart=image.labels.get(LABEL_PRESTART) == "1" if call.prestart is None else call.prestart,
    )


def _isolation(image: Image, call: RunCall, fresh_only: bool) -> Isolation:
    asked = call.isolation or _label_isolation(image)
    if not fresh_only:
        return asked
    if call.isolation is Isolation.SHARED:
        raise BadRequest(
            "isolation: this set runs every task in a new container, as its runtime keeps things from one task to the "
            "next; leave it out, or ask for fresh",
            field="isolation",
        )
    return Isolation.FRESH


def _label_isolation(image: Image) -> Isolation:
    label = image.labels.get(LABEL_ISOLATION, Isolation.SHARED)
    try:
        return Isolation(label)
    except ValueError:
        raise ImageUnusable(f"its label {LABEL_ISOLATION}={label!r} is neither shared nor fresh") from None
