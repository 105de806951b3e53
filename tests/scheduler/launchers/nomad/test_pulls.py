"""Images that every node has ahead of the tasks: the set's list comes in, and the cluster has a job for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scheduler.launchers.nomad.api import Cluster
from scheduler.launchers.nomad.orders import Ahead, AheadImage
from scheduler.launchers.nomad.pulls import Pulls, progress
from scheduler.launchers.nomad.records import Allocation, TaskEvent, TaskState
from scheduler.launchers.nomad.settings import RegistrarSettings
from tests.scheduler.launchers.nomad.double import NomadDouble

INSTALLATION = "0123456789ab"
DIGEST = "sha256:" + "1" * 64
CAT = AheadImage("acme/cat:1", f"registry.example/acme/cat@{DIGEST}", ("/tmp", "/data"))
DOG = AheadImage("acme/dog:1", f"registry.example/acme/dog@{DIGEST}", ("/tmp",))


class Stand:
    """The pulls of set `a` on a double of the cluster."""

    def __init__(self) -> None:
        self.double = NomadDouble()
        self._cluster: list[Cluster] = []
        self.pulls = self.another_run()

    def another_run(self) -> Pulls:
        """What a registrar has that has just started."""
        settings = RegistrarSettings(
            set_name="a", socket="/none", address=self.double.url, registries=("registry.example",)
        )
        self._cluster.append(Cluster(settings))
        return Pulls(settings, self._cluster[-1], "guest", "slots.json")

    async def want(self, *images: AheadImage) -> None:
        await self.pulls.want(INSTALLATION, Ahead(images))

    def jobs(self) -> list[str]:
        return sorted(job["Name"] for job in self.double.jobs.values())

    def close(self) -> None:
        for cluster in self._cluster:
            cluster.close()
        self.double.close()


@pytest.fixture
def stand() -> Iterator[Stand]:
    stand = Stand()
    yield stand
    stand.close()


async def test_each_image_has_one_job_which_every_node_runs(stand: Stand) -> None:
    await stand.want(CAT, DOG)
    assert stand.jobs() == ["set a: pull acme/cat:1", "set a: pull acme/dog:1"]
    assert {job["Type"] for job in stand.double.jobs.values()} == {"sysbatch"}
    # Said again, also by a registrar that has just started, it is the same job.
    await stand.want(CAT, DOG)
    stand.pulls = stand.another_run()
    await stand.want(CAT, DOG)
    assert len(stand.jobs()) == 2


async def test_an_image_that_is_no_longer_wanted_has_no_job(stand: Stand) -> None:
    await stand.want(CAT, DOG)
    await stand.want(DOG)
    assert stand.jobs() == ["set a: pull acme/dog:1"]
    await stand.want()
    assert stand.jobs() == []


async def test_jobs_of_another_installation_and_slots_are_left_alone(stand: Stand) -> None:
    await stand.want(CAT)
    others = stand.another_run()
    await others.want("f" * 12, Ahead((DOG,)))
    await others.want("f" * 12, Ahead(()))
    assert stand.jobs() == ["set a: pull acme/cat:1"]


async def test_a_job_that_the_cluster_has_forgotten_is_registered_again_and_a_stopped_one_is_not(
    stand: Stand,
) -> None:
    await stand.want(CAT)
    stand.double.jobs.clear()
    await stand.pulls.compare()
    assert stand.jobs() == ["set a: pull acme/cat:1"]
    (job,) = stand.double.jobs.values()
    job["Stop"] = True
    await stand.pulls.compare()
    assert job["Stop"]


async def test_an_image_that_is_refused_keeps_no_other_from_being_pulled(stand: Stand) -> None:
    bad = (
        AheadImage("acme/cat:1", "registry.example/${x}", ()),
        AheadImage("acme/cat:1", f"other.example/acme/cat@{DIGEST}", ()),
        AheadImage("acme/cat:1", CAT.run, ("/etc",)),
        AheadImage("acme/cat:1", CAT.run, ("/${x}",)),
    )
    await stand.want(*bad, DOG)
    assert stand.jobs() == ["set a: pull acme/dog:1"]


async def test_a_cluster_that_is_away_is_asked_again(stand: Stand) -> None:
    stand.double.broken = True
    await stand.want(CAT)
    stand.double.broken = False
    assert stand.jobs() == []
    await stand.pulls.compare()
    assert stand.jobs() == ["set a: pull acme/cat:1"]


def test_each_node_says_in_words_how_far_it_is() -> None:
    def said(status: str, event: TaskEvent | None = None) -> str:
        states = {"guest": TaskState(events=(event,))} if event is not None else None
        return progress(
            Allocation("a", "job", "pull", node_name="n1", client_status=status, task_states=states)
        )

    assert said("pending") == "node n1 is about to have the image"
    assert said("pending", TaskEvent("Driver", "Downloading image")) == "node n1 is pulling the image"
    assert said("complete") == "node n1 has the image"
    error = {"driver_error": "Failed to pull `r/x:1`: manifest unknown"}
    assert said("failed", TaskEvent("Driver Failure", details=error)).startswith(
        "no such image: Failed to pull"
    )
