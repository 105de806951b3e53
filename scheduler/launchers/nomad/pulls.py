"""Keeps the images of a set on every node ahead of its tasks: a sysbatch job for each, which pulls it and ends."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any, Final

import structlog

from scheduler.errors import SchedulerError
from scheduler.launchers.nomad.api import Cluster
from scheduler.launchers.nomad.job import OrderRefused, check_image, written
from scheduler.launchers.nomad.orders import Ahead, AheadImage
from scheduler.launchers.nomad.records import Allocation
from scheduler.launchers.nomad.settings import TEMPLATE, RegistrarSettings
from scheduler.launchers.nomad.words import Kind, explain
from scheduler.trouble import Trouble

log = structlog.get_logger()

_TEMPLATE: Final = TEMPLATE.with_name("pull.nomad.hcl")
_IMAGES_MOST: Final = 100
"""How many images a set may have pulled ahead: each is a job that every node runs."""


class Pulls:
    """The pulls of one installation of a set. `guest` and `seccomp` name the files of this build on the nodes."""

    def __init__(self, settings: RegistrarSettings, cluster: Cluster, guest: str, seccomp: str) -> None:
        self._settings = settings
        self._cluster = cluster
        self._guest = guest
        self._seccomp = seccomp
        self._turn = asyncio.Lock()
        self._prefix = ""
        self._wanted: dict[str, AheadImage] | None = None
        self._told: dict[tuple[str, str], str] = {}
        self._trouble = Trouble("images could not be pulled ahead", "images are pulled ahead again")

    async def want(self, installation: str, ahead: Ahead) -> None:
        """The set wants these images on every node, and no others."""
        prefix = f"gc-{self._settings.set_name}-pull-{installation}-"
        wanted: dict[str, AheadImage] = {}
        for image in ahead.images[:_IMAGES_MOST]:
            try:
                check_image(image.image, image.run, image.places, self._settings)
            except OrderRefused as error:
                log.warning("image is not pulled ahead", image=image.image, reason=str(error))
                continue
            content = json.dumps([image.run, image.places, self._guest, self._seccomp])
            wanted[prefix + hashlib.sha256(content.encode()).hexdigest()[:12]] = image
        self._prefix, self._wanted = prefix, wanted
        await self.compare()

    async def compare(self) -> None:
        """Register the jobs that are missing, purge those that nobody wants, and log how each node fares."""
        if self._wanted is None or self._turn.locked():
            return
        async with self._turn:
            try:
                await self._compare(self._wanted)
            except (SchedulerError, OSError) as error:
                self._trouble.met(str(error))
            else:
                self._trouble.over()

    async def _compare(self, wanted: dict[str, AheadImage]) -> None:
        jobs, _ = await self._cluster.jobs(self._prefix)
        there = {job.id for job in jobs}
        for job_id in there - wanted.keys():
            await self._cluster.deregister(job_id, purge=True)
        for job_id in wanted.keys() - there:
            template = await asyncio.to_thread(_TEMPLATE.read_text, encoding="utf-8")
            values = variables(job_id, wanted[job_id], self._settings, self._guest, self._seccomp)
            await self._cluster.register(await self._cluster.parse(template, written(values)))
            log.info("image is pulled ahead", image=wanted[job_id].image, job=job_id)
        if wanted:
            allocations, _ = await self._cluster.allocations(self._prefix)
            self._tell(wanted, allocations)

    def _tell(self, wanted: dict[str, AheadImage], allocations: list[Allocation]) -> None:
        """Log what is new of each image on each node."""
        told = {}
        for each in sorted(allocations, key=lambda allocation: allocation.create_index):
            if (image := wanted.get(each.job_id)) is not None:
                told[image.image, each.node_name] = progress(each)
        for (image_name, node), words in told.items():
            if self._told.get((image_name, node)) != words:
                log.info("image ahead", image=image_name, node=node, state=words)
        self._told = told


def variables(
    job_id: str, image: AheadImage, settings: RegistrarSettings, guest: str, seccomp: str
) -> dict[str, Any]:
    """The variables of jobspecs/pull.nomad.hcl. `guest` and `seccomp` name the files of this build on every node."""
    return {
        "job_id": job_id,
        "set_name": settings.set_name,
        "image": image.image,
        "run": image.run,
        "places": list(image.places),
        "guest": guest,
        "seccomp": f"{settings.node_folder}/seccomp/{seccomp}",
        "runtime": settings.runtime,
        "region": settings.region,
        "namespace": settings.namespace,
        "datacenters": list(settings.datacenters),
        "node_pool": settings.node_pool,
    }


def progress(allocation: Allocation) -> str:
    """Say how a pull fares on its node."""
    if allocation.client_status == "complete":
        return f"node {allocation.node_name} has the image"
    verdict = explain(allocation.group, allocation, None)
    if verdict.kind in (Kind.RUNNING, Kind.STARTING):
        return f"node {allocation.node_name} is about to have the image"
    return verdict.words
