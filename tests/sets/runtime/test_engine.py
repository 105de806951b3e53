"""The runtime under a real engine: the ids of its containers, and the claims on them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container

from ops.setup import processes, userns
from ops.setup.engine import PrivateEngine
from ops.setup.runtimes import OWN
from tests.sets.runtime.rig import BLOCK, MAPPED

pytestmark = pytest.mark.docker

CLAIMS = Path("/run/gcompute-runc/claims")
PROGRAM = "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n"
DOCKERFILE = 'FROM scratch\nCOPY waiter /waiter\nENTRYPOINT ["/waiter"]\n'


@pytest.fixture
def client(tmp_path: Path) -> Iterator[docker.DockerClient]:
    """An engine of its own, with the image `waiter:1`."""
    if os.geteuid() != 0:
        pytest.skip("a private engine needs root, as make test in CI has")
    userns.prepare(userns.RUNTIME)
    private = PrivateEngine(tmp_path)
    private.start()
    made = docker.DockerClient(base_url=private.layout.host, timeout=60)
    try:
        yield made
    finally:
        made.close()
        private.stop()


def first_uid(container: Container) -> int:
    """Return the host's id of root in a container."""
    container.reload()
    inside, on_host, count = Path(f"/proc/{container.attrs['State']['Pid']}/uid_map").read_text().split()
    assert (int(inside), int(count)) == (0, MAPPED)
    return int(on_host)


def claim(first: int) -> str:
    """Return what the claim on the block says that begins at this id."""
    table = userns.ranges(Path("/etc/subuid").read_text())
    start = next(begin for user, begin, _ in table if user == userns.RUNTIME.user)
    return os.readlink(CLAIMS / str((first - start) // BLOCK))


def test_containers_of_an_engine_share_no_ids_and_free_them_at_their_end(
    client: docker.DockerClient, tmp_path: Path
) -> None:
    folder = tmp_path / "image"
    folder.mkdir()
    (folder / "waiter.c").write_text(PROGRAM)
    compile_it = ["cc", "-static", "-o", str(folder / "waiter"), str(folder / "waiter.c")]
    subprocess.run(compile_it, check=True)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    client.images.build(path=str(folder), tag="waiter:1", rm=True)
    containers = [
        client.containers.run("waiter:1", detach=True, network_mode="none", read_only=True, runtime=OWN)
        for _ in range(2)
    ]
    one, other = map(first_uid, containers)
    assert abs(one - other) >= BLOCK
    state = Path(claim(one).split(":", 2)[2])
    assert state.name == containers[0].id
    assert state.is_dir()
    containers[0].remove(force=True)
    assert processes.wait_until(lambda: not state.exists(), 60)
    assert Path(claim(other).split(":", 2)[2]).is_dir()
    refused = client.containers.create("waiter:1", network_mode="none", runtime=OWN)
    with pytest.raises(docker.errors.APIError, match="create it with a read-only root"):
        refused.start()
