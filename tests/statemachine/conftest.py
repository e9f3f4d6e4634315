"""The production state machine, ready to run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.statemachine.interpreter.world import World
from tests.statemachine.scripted import RunJob


@pytest.fixture
def run_job() -> Iterator[RunJob]:
    """The production state machine on scripted functions, where waits take no time."""
    world = World()
    yield RunJob(world)
    world.service.close()
