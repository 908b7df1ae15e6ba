"""The worlds that the system tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.world import World

Worlds = dict[tuple[int, str | None], World]


@pytest.fixture(scope="session")
def worlds() -> Iterator[Worlds]:
    """Worlds in use, by size and backend."""
    used: Worlds = {}
    yield used
    for world in used.values():
        world.close()


def healthy(worlds: Worlds, num_ranks: int, backend: str | None) -> World:
    key = num_ranks, backend
    if key in worlds and not worlds[key].healthy:
        worlds.pop(key).close()
    if key not in worlds:
        worlds[key] = World(num_ranks, backend)
    return worlds[key]


@pytest.fixture
def world(worlds: Worlds) -> World:
    """Four ranks over thinwire; fresh ones if the last test broke them."""
    return healthy(worlds, 4, "thinwire")


@pytest.fixture
def ungrouped_world(worlds: Worlds) -> World:
    """Two processes that have not initialised torch.distributed yet."""
    return healthy(worlds, 2, None)
