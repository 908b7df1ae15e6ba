"""The key-value store where the ranks of a probe meet: what is needed of it, and one probe's part of it.

Values travel as JSON. Who can read the store is trusted. Not here: what is written (``coordinator``, ``quick``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol, TypeVar

import msgspec

from thinwire.errors import LinkError, ThinwireError

Value = TypeVar("Value")


class Store(Protocol):
    """The part of ``torch.distributed.Store`` that is needed. Failures are ``RuntimeError``."""

    def set(self, key: str, value: str, /) -> object: ...
    def get(self, key: str, /) -> bytes: ...
    def add(self, key: str, amount: int, /) -> int: ...
    def check(self, keys: list[str], /) -> bool: ...
    def wait(self, keys: list[str], timeout: timedelta, /) -> object: ...
    def delete_key(self, key: str, /) -> object: ...


def _unreachable(error: RuntimeError) -> ThinwireError:
    return LinkError(f"the store where the ranks meet failed: {error}; check that its host runs")


@contextmanager
def store_errors(
    told_as: Callable[[RuntimeError], ThinwireError] = _unreachable,
) -> Iterator[None]:
    """What the store raises in here leaves as ``told_as`` says it; thinwire's own errors leave as they are."""
    try:
        yield
    except ThinwireError:
        raise
    except RuntimeError as error:
        raise told_as(error) from error


class Desk:
    """What one rank reads and writes in the store.

    Args:
        store: may be used for several probes: the n-th of one rank meets the n-th of the others.
    """

    def __init__(self, store: Store, rank: int, num_ranks: int) -> None:
        self.rank, self.num_ranks = rank, num_ranks
        self._store = store
        self._prefix = f"thinwire/probe/{store.add(f'thinwire/probe/joined/{rank}', 1)}"

    def put(self, key: str, value: object) -> None:
        """Write it, for all ranks of this probe."""
        self._store.set(self._full(key), msgspec.json.encode(value).decode())

    def read(self, key: str, kind: type[Value]) -> Value:
        """What is there by now."""
        return msgspec.json.decode(self._store.get(self._full(key)), type=kind)

    def is_there(self, key: str) -> bool:
        """Whether somebody has written it."""
        return self._store.check([self._full(key)])

    def wait_for(self, keys: Iterable[str], timeout_s: float) -> set[str]:
        """Those that are there, as soon as all are or the time is over."""
        awaited = list(keys)
        try:
            self._store.wait([self._full(key) for key in awaited], timedelta(seconds=timeout_s))
        except RuntimeError:
            return {key for key in awaited if self.is_there(key)}
        return set(awaited)

    def delete(self, key: str) -> None:
        """Take it out of the store."""
        self._store.delete_key(self._full(key))

    def _full(self, key: str) -> str:
        return f"{self._prefix}/{key}"
