"""A set with an allow list of registries: no reference makes it, or its engine, contact anything else."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.conftest import SetProcess, StartSet

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def listing_set(start_set: StartSet) -> SetProcess:
    return start_set("tregistries", "registries: [{name: registry.invalid}]\n")


@pytest.fixture
def canary() -> Iterator[socket.socket]:
    """Listens where nobody may connect."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(8)
        listening.setblocking(False)
        yield listening


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "[::1]", "localhost", "0.0.0.0"])
def test_a_registry_that_is_not_listed_is_refused_unasked(
    listing_set: SetProcess, canary: socket.socket, host: str, mode: str
) -> None:
    reference = f"{host}:{canary.getsockname()[1]}/acme/cat:1"
    headers = {"Prefer": "respond-async"} if mode == "async" else {}
    with listing_set.client() as client:
        answer = client.post(f"/v1/run/{quote(reference)}", headers=headers)
    assert answer.status_code == 403, answer.text
    problem = answer.json()
    assert problem["type"].endswith("/registry-not-allowed")
    assert "`registries`" in problem["detail"]
    assert problem["executed"] is False
    with pytest.raises(BlockingIOError):
        canary.accept()


def test_an_image_that_the_engine_lacks_and_that_names_no_registry_is_unknown(
    listing_set: SetProcess,
) -> None:
    with listing_set.client() as client:
        answer = client.post("/v1/run/no-such-image:1")
    assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (404, "image-unknown")
