"""torch futures whose callbacks may call collectives, and which fail in a way that C++ survives.

The callbacks of a future are a user's code: they may be slow, block, and call further collectives (the PowerSGD
hook of DistributedDataParallel does all three). Whether a callback runs on a lane or, because its future was complete
when it was attached, on the thread that attached it, is chance and differs from rank to rank; what it calls must
not depend on that. So while a callback runs, ``calling_callbacks_of`` names the strand whose future it belongs to,
on whatever thread, and down the chain of ``then``.

torch's ``set_exception`` completes a future with the exception as its value. Python's ``wait`` raises it, but
DistributedDataParallel takes it for a list of tensors and reads past its end. Here the value is one that C++ cannot
take tensors from: it gets an error with the same text.

Not here: when a future is completed (``work``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NoReturn, TypeVar

import torch

T = TypeVar("T")

_strand_of_callback: ContextVar[str] = ContextVar("strand_of_callback", default="")


def calling_callbacks_of() -> str:
    """The name of the strand whose future's callback is running; ``""`` outside of callbacks."""
    return _strand_of_callback.get()


@contextlib.contextmanager
def callback_of(strand: str) -> Iterator[None]:
    """What is called in this block, on this thread, belongs to a callback of that strand."""
    token = _strand_of_callback.set(strand)
    try:
        yield
    finally:
        _strand_of_callback.reset(token)


class StrandFuture(torch.futures.Future[Any]):
    """A future of something called on a strand, or of what its callbacks return.

    Args:
        strand: the strand's name.
        devices: as for torch's future.

    >>> future = StrandFuture("a strand", [])
    >>> name = future.then(lambda done: (done.value(), calling_callbacks_of()))
    >>> future.set_result(1)
    >>> name.wait()
    (1, 'a strand')
    """

    def __init__(self, strand: str, devices: Sequence[torch.device]) -> None:
        super().__init__(devices=list(devices))
        self._strand = strand
        self._devices = devices

    def then(self, callback: Callable[[torch.futures.Future[Any]], T]) -> torch.futures.Future[T]:
        child = StrandFuture(self._strand, self._devices)

        def call(_: torch.futures.Future[Any]) -> None:
            try:
                with callback_of(self._strand):
                    result = callback(self)
            except Exception as error:
                child.set_exception(error)
            else:
                child.set_result(result)

        super().add_done_callback(call)
        return child

    def add_done_callback(self, callback: Callable[[torch.futures.Future[Any]], None]) -> None:
        def call(_: torch.futures.Future[Any]) -> None:
            with callback_of(self._strand):
                callback(self)

        super().add_done_callback(call)

    def set_exception(self, error: Exception) -> None:
        self._set_unwrap_func(_Failure.unwrap)
        self.set_result(_Failure(error))


class _Failure:
    """The value of a failed future. torch pickles a value to find the tensors in it, which raises here."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __repr__(self) -> str:
        return f"{type(self._error).__name__}: {self._error}"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise self._error

    def unwrap(self) -> NoReturn:
        raise self._error
