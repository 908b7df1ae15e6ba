"""The fixtures of the transport tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.transport.house import House


@pytest.fixture
def house() -> Iterator[House]:
    with contextlib.ExitStack() as stack:
        yield House(stack)
