"""All router tests run on uvloop, as the router does."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import uvloop


def pytest_configure(config: pytest.Config) -> None:
    # Its successor, a hook, would change the loop of every other directory's tests as well.
    config.addinivalue_line("filterwarnings", "ignore:Overriding the .event_loop_policy:DeprecationWarning")


@pytest.fixture
def event_loop_policy() -> uvloop.EventLoopPolicy:
    return uvloop.EventLoopPolicy()


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is free during the test is free without the garbage collector."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
