"""The world of four ranks that the system tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.world import World


@pytest.fixture(scope="session")
def shared_world() -> Iterator[list[World]]:
    holder: list[World] = []
    yield holder
    for world in holder:
        world.close()


@pytest.fixture
def world(shared_world: list[World]) -> World:
    """Four ranks over thinwire; fresh ones if the last test broke them."""
    if shared_world and not shared_world[0].healthy:
        shared_world.pop().close()
    if not shared_world:
        shared_world.append(World(4))
    return shared_world[0]
