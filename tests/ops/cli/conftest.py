"""The program against a server that plays the API, and against a real router."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.ops.cli.fake_api import FakeApi
from tests.ops.cli.program import Program
from tests.ops.cli.routers import FILE, Operator, routing


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi()
    yield fake
    fake.close()


@pytest.fixture
def gcompute(api: FakeApi) -> Program:
    return Program(api.url)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    with routing(tmp_path_factory.mktemp("router")) as operator:
        yield operator


@pytest.fixture
def operator(shared: Operator) -> Operator:
    """A router that has the first version in force again."""
    wanted = FILE.format(port=shared.file.read_text().partition("127.0.0.1:")[2].partition('"')[0])
    if shared.file.read_text() != wanted:
        shared.file.write_text(wanted)
        deadline = time.monotonic() + 10
        while (status := shared.json("status"))["version"] != 7 or status["config_error"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    return shared
