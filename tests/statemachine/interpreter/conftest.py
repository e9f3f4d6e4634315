"""A fresh service for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.local.states import Clock
from tests.statemachine.interpreter.world import World


@pytest.fixture
def world() -> Iterator[World]:
    """A service whose waits take no time."""
    world = World()
    yield world
    world.service.close()


@pytest.fixture
def slow_world() -> Iterator[World]:
    """A service on the real clock."""
    world = World(Clock())
    yield world
    world.service.close()
