"""One conversation with Nomad's API, step by step: held with a real agent, whose answers are kept, and with the double.

Each step has a name. What the double answers must have the status, the error text and the fields of the real answer, as
far as the platform reads them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from scheduler.launchers.nomad.job import variables, written
from scheduler.launchers.nomad.orders import Add, NewSlot
from scheduler.launchers.nomad.settings import TEMPLATE, RegistrarSettings
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Resources

PATIENCE_S = 120.0
INSTALLATION = "0123456789ab"
PREFIX = f"gc-conversation-{INSTALLATION}-"
NOBODY = "00000000-0000-0000-0000-000000000000"


@dataclass
class Step:
    """One answer: JSON where it is, else text."""

    name: str
    status: int
    body: Any


class Talk:
    """Speaks with one API. `run` is an image that its node has; `guest` and `seccomp` are files there."""

    def __init__(
        self, url: str, node_folder: str, run: str, guest: str, seccomp: str, **options: Any
    ) -> None:
        self.client = httpx.Client(base_url=url, timeout=30, trust_env=False, **options)
        self._settings = RegistrarSettings(
            set_name="conversation", socket="/none", address=url, node_folder=node_folder
        )
        self._run, self._guest, self._seccomp = run, guest, seccomp

    def step(self, name: str, method: str, path: str, **options: Any) -> Step:
        answer = self.client.request(method, path, **options)
        try:
            body = answer.json()
        except ValueError:
            body = answer.text
        return Step(name, answer.status_code, body)

    def variables(
        self, job: str, *, memory_mib: int = 32, feature: str = "", run: str = "", **names: str
    ) -> dict[str, Any]:
        """`names`: other files on the node than `guest` and `seccomp` of this conversation."""
        pool = PoolKey(
            "acme",
            "sha256:" + "0" * 64,
            Resources(100, memory_mib),
            Isolation.SHARED,
            (feature,) if feature else (),
        )
        slots = (NewSlot(f"{job}-slot", "ab" * 32, "none/such"),)
        add = Add(1, pool, "ncat:1", run or self._run, ("/tmp", "/dev/shm"), ("PATH",), slots)
        files = {"guest": self._guest, "seccomp": self._seccomp, **names}
        return variables(add, self._settings, PREFIX + job, INSTALLATION, **files)

    def parse(self, name: str, job: str, **changes: Any) -> Step:
        body = {
            "JobHCL": TEMPLATE.read_text(),
            "Variables": written(self.variables(job, **changes)),
            "Canonicalize": True,
        }
        return self.step(name, "POST", "/v1/jobs/parse", json=body)

    def register(self, name: str, job: Any) -> Step:
        return self.step(
            name, "POST", "/v1/jobs", json={"Job": job, "EnforceIndex": True, "JobModifyIndex": 0}
        )

    def allocations(self, name: str, job: str) -> Step:
        query = {"task_states": "true", "per_page": "500", "filter": f'JobID matches "^{PREFIX}{job}"'}
        return self.step(name, "GET", "/v1/allocations", params=query)

    def evaluations(self, name: str, job: str) -> Step:
        query = {"per_page": "500", "filter": f'JobID matches "^{PREFIX}{job}"'}
        return self.step(name, "GET", "/v1/evaluations", params=query)

    def until(self, ask: Callable[[], Step], holds: Callable[[Any], bool]) -> Step:
        """Ask again until the answer is as it must become."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            step = ask()
            if holds(step.body):
                return step
            assert time.monotonic() < deadline, step
            time.sleep(0.05)

    def started(self, name: str, job: str, **changes: Any) -> Iterator[Step]:
        """Parse and register, without keeping the answers."""
        parsed = self.parse(f"{name}: parse", job, **changes)
        assert parsed.status == 200, parsed
        registered = self.register(f"{name}: register", parsed.body)
        assert registered.status == 200, registered
        return iter((parsed, registered))


def status(*wanted: str) -> Callable[[Any], bool]:
    return lambda body: bool(body) and all(each["ClientStatus"] in wanted for each in body)


def converse(talk: Talk) -> Iterator[Step]:
    """The conversation. It leaves nothing behind."""
    yield talk.step("a template that is no HCL", "POST", "/v1/jobs/parse", json={"JobHCL": "job {"})
    parsed = talk.parse("the template of slots", "one")
    yield parsed
    yield talk.register("a new job", parsed.body)
    yield talk.register("the same job again", parsed.body)
    yield talk.until(lambda: talk.allocations("a slot that runs", "one"), status("running"))
    yield talk.until(
        lambda: talk.evaluations("an evaluation that placed a slot", "one"),
        lambda body: any(each["Status"] == "complete" for each in body),
    )
    yield talk.step("jobs of a set", "GET", "/v1/jobs", params={"prefix": PREFIX})
    yield talk.step("nodes of a pool", "GET", "/v1/nodes", params={"filter": 'NodePool == "default"'})
    kill = {"Signal": "SIGKILL", "Task": "guest"}
    yield talk.step("a signal to nobody", "POST", f"/v1/client/allocation/{NOBODY}/signal", json=kill)
    running = talk.allocations("", "one").body[0]["ID"]
    yield talk.step("a signal to a slot", "POST", f"/v1/client/allocation/{running}/signal", json=kill)
    yield talk.until(lambda: talk.allocations("a slot that was killed", "one"), status("failed"))
    yield talk.step(
        "a signal to a slot that has ended", "POST", f"/v1/client/allocation/{running}/signal", json=kill
    )
    yield talk.step("a job is ended", "DELETE", f"/v1/job/{PREFIX}one", params={"purge": "false"})
    yield talk.step("a job is purged", "DELETE", f"/v1/job/{PREFIX}one", params={"purge": "true"})
    yield talk.step("a job that is not there is ended", "DELETE", f"/v1/job/{PREFIX}none")

    def refused(body: Any) -> bool:
        # A scheduler writes the evaluation that is blocked before it completes the one that it looked at.
        return any(each.get("FailedTGAllocs") and each["Status"] == "complete" for each in body)

    list(talk.started("", "large", memory_mib=262_144))
    yield talk.until(lambda: talk.evaluations("a slot that is too large for every node", "large"), refused)
    list(talk.started("", "feature", feature="nosuch"))
    yield talk.until(lambda: talk.evaluations("a CPU feature that no node has", "feature"), refused)
    list(talk.started("", "absent", run="sha256:" + "0" * 64))
    yield talk.until(lambda: talk.allocations("an image that the node lacks", "absent"), status("failed"))
    for job in ("large", "feature", "absent"):
        talk.step("", "DELETE", f"/v1/job/{PREFIX}{job}", params={"purge": "true"})


def losses(talk: Talk, hanging: str, lose: Callable[[], None], find: Callable[[], None]) -> Iterator[Step]:
    """Conversation about nodes that are lost and found. `hanging` is an image whose pull does not end."""

    def known(name: str, job: str, *wanted: str, desired: str = "") -> Step:
        """The job's first allocation, once it is so. Nomad replaces one that it lost, as soon as it has a node."""

        def first() -> Step:
            step = talk.allocations(name, job)
            step.body = sorted(step.body, key=lambda each: each["CreateIndex"])[:1]
            return step

        return talk.until(
            first,
            lambda body: status(*wanted)(body) and all(each["DesiredStatus"] == desired for each in body),
        )

    for job, run in (("runs", ""), ("dropped", ""), ("starts", hanging)):
        list(talk.started("", job, run=run))
    for job in ("runs", "dropped"):
        known("", job, "running", desired="run")
    known("", "starts", "pending", desired="run")
    lose()
    yield known("a slot that runs on a lost node", "runs", "unknown", desired="run")
    yield known("a slot that starts on a lost node", "starts", "lost", desired="stop")
    talk.step("", "DELETE", f"/v1/job/{PREFIX}dropped", params={"purge": "false"})
    yield known("a slot that is deregistered on a lost node", "dropped", "unknown", desired="stop")
    find()
    ended = ("complete", "failed")
    yield known("a slot that was deregistered, when its node is back", "dropped", *ended, desired="stop")
    yield known("a slot that was lost, when its node is back", "starts", *ended, desired="stop")
    for job in ("runs", "dropped", "starts"):
        talk.step("", "DELETE", f"/v1/job/{PREFIX}{job}", params={"purge": "true"})


def kept(step: Step) -> dict[str, Any]:
    """A step as it is written to a file."""
    return {"name": step.name, "status": step.status, "body": step.body}


def steps(text: bytes) -> dict[str, Step]:
    """The steps of a file, by name."""
    return {each.name: each for each in msgspec.json.decode(text, type=list[Step])}
