"""What error feedback remembers, kept by parameter, so that it survives when DistributedDataParallel rebuilds its
buckets.

A bucket's memory is one array; DDP lays its buckets out anew after the first step, and a checkpoint may be loaded
into a model whose buckets are laid out otherwise. So for every parameter it is known where what is owed to it lies,
and a bucket that was not seen before collects what is owed to its parameters from there.

Not here: what a residual is (``runtime.coding``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from thinwire.codec.base import Floats
from thinwire.errors import UsageError
from thinwire.runtime.codec_memory import CodecMemory, TensorMemory

Layout = Sequence[tuple[str, int]]  # the parameters of a bucket: name and number of values, in order


class _Place(NamedTuple):
    bucket: str
    start: int
    stop: int


class Residuals:
    """The memories of a model's buckets.

    >>> residuals = Residuals()
    >>> residuals.of_bucket([("weight", 2), ("bias", 1)]).residual = np.array([1, 2, 3], np.float32)
    >>> residuals.of_bucket([("bias", 1)]).residual
    array([3.], dtype=float32)
    """

    def __init__(self) -> None:
        self._memory = CodecMemory()
        self._layouts: dict[str, tuple[tuple[str, int], ...]] = {}
        self._places: dict[str, _Place] = {}

    def of_bucket(self, layout: Layout) -> TensorMemory:
        """The memory of a bucket of these parameters, which is owed what they are owed."""
        layout = tuple(layout)
        name = _name_of(layout)
        if self._layouts.get(name) == layout and self._places[layout[0][0]].bucket == name:
            return self._memory[name]
        owed = self.take(layout)
        self._layouts[name] = layout
        start = 0
        for parameter, size in layout:
            self._places[parameter] = _Place(name, start, start + size)
            start += size
        memory = self._memory[name]
        memory.residual = np.zeros(start, np.float32) if owed is None else owed
        return memory

    def take(self, layout: Layout) -> Floats | None:
        """What is owed to these parameters, which from now on are owed nothing; None if nothing is."""
        owed, found, start = np.zeros(sum(size for _, size in layout), np.float32), False, 0
        for parameter, size in layout:
            place = self._places.get(parameter)
            if place is not None:
                residual = self._memory[place.bucket].residual[place.start : place.stop]
                if residual.size == size:
                    owed[start : start + size] = residual
                    found = found or bool(residual.any())
                    residual[:] = 0
            start += size
        return owed if found else None

    def state_dict(self) -> dict[str, Any]:
        """Everything, as ``torch.save`` takes it."""
        return {
            "memory": self._memory.state_dict(),
            "layouts": {name: [list(each) for each in layout] for name, layout in self._layouts.items()},
            "places": {parameter: list(place) for parameter, place in self._places.items()},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Raises UsageError if this is not what ``state_dict`` returned."""
        try:
            self._memory.load_state_dict(state_dict["memory"])
            self._layouts = {
                name: tuple((str(parameter), int(size)) for parameter, size in layout)
                for name, layout in state_dict["layouts"].items()
            }
            self._places = {name: _Place(*place) for name, place in state_dict["places"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"these are not saved residuals: {type(error).__name__}: {error}") from None


def _name_of(layout: tuple[tuple[str, int], ...]) -> str:
    return f"{layout[0][0]}..{layout[-1][0]} ({len(layout)}, {sum(size for _, size in layout)})"
