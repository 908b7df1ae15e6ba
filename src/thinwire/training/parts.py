"""The parts of DistributedDataParallel's buckets that leave before their bucket is full.

DDP packs up to 25 MB into a bucket, so that a small model has one or two, and the second is full when the backward pass
ends: nothing of it could hide. A part is a stretch of a bucket's parameters whose gradients may leave as soon as they
are there. What is coded leaves in parts; what is exact leaves with its bucket, because bytes are no concern there,
and every message costs.

A step has the parts of the step before, if two in a row had the same buckets. They leave in one order on every rank,
that of the buckets, and those of a bucket that is full leave at the latest then, so a parameter that gets no gradient
holds up nothing.

Not here: how a part travels, and what for (``bucketed``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.futures import Future

from thinwire.training.meter import Transfer

NUM_PARTS = 4  # of a model, about
LEAST_VALUES = 1 << 17

Buckets = list[tuple[Tensor, ...]]


@dataclass
class Part:
    """One part, in one step.

    Attributes:
        index: its place among all of the step.
        bucket: the index of the bucket that it is of.
        parameters: whose gradients it carries.
        is_whole: whether it is all of its bucket, and so cannot leave before that is full.
        missing: those whose gradients are not there yet, by identity.
        transfer: as the meter knows it, since it was due.
        average: of what left early, when it will have arrived.
    """

    index: int
    bucket: int
    parameters: tuple[Tensor, ...]
    is_whole: bool = True
    missing: set[int] = field(default_factory=set)
    transfer: Transfer | None = None
    average: Future[Any] | None = None

    def packed(self) -> Tensor:
        """Its gradients, copied into one flat tensor."""
        gradients = [each.grad for each in self.parameters]
        return torch.cat([each.detach().flatten() for each in gradients if each is not None])


class Parts:
    """Of one model's buckets. Told of every gradient and of every bucket that is full.

    >>> parts, weights = Parts(), [torch.zeros(1 << 18) for _ in range(2)]
    >>> for _ in range(3):  # steps
    ...     parts.begin_step()
    ...     is_known = [parts.arrived(weight) for weight in weights]
    ...     found = parts.of_bucket(0, weights)
    >>> is_known, [(part.index, part.bucket) for part in found]
    ([True, True], [(0, 0), (1, 0)])
    """

    def __init__(self) -> None:
        self._before: Buckets = []
        self._buckets: Buckets = []
        self._parts: list[Part] = []
        self._part_of: dict[int, Part] = {}
        self._next = 0

    def begin_step(self) -> None:
        """What comes now belongs to another backward pass."""
        is_settled = bool(self._buckets) and _alike(self._buckets, self._before)
        if not is_settled:
            self._parts = []
        elif not self._parts or not _alike(self._buckets, _buckets_of(self._parts)):
            self._parts = _parts_of(self._buckets)
        self._part_of = {id(each): part for part in self._parts for each in part.parameters}
        for part in self._parts:
            part.missing, part.transfer, part.average = set(map(id, part.parameters)), None, None
        self._before, self._buckets, self._next = self._buckets, [], 0

    def arrived(self, parameter: Tensor) -> bool:
        """The gradient of this parameter is there; says whether it is of a part that is known."""
        part = self._part_of.get(id(parameter))
        if part is not None:
            part.missing.discard(id(parameter))
        return part is not None

    def next_due(self, full: int = -1) -> Part | None:
        """The part whose turn it is, if all its gradients are there or its bucket is full, up to that index."""
        part = self._parts[self._next] if self._next < len(self._parts) else None
        if part is None or ((part.missing or part.is_whole) and part.bucket > full):
            return None
        self._next += 1
        return part

    def of_bucket(self, bucket: int, parameters: Sequence[Tensor]) -> list[Part]:
        """The parts of a bucket that is full; one, if it is not as it was in the step before."""
        self._buckets.append(tuple(parameters))
        found = [part for part in self._parts if part.bucket == bucket]
        if not _alike(self._buckets, _buckets_of(self._parts)[: len(self._buckets)]):
            return [Part(bucket, bucket, tuple(parameters))]
        return found


def _parts_of(buckets: Buckets) -> list[Part]:
    least = max(LEAST_VALUES, sum(each.numel() for bucket in buckets for each in bucket) // NUM_PARTS)
    parts: list[Part] = []
    for index, bucket in enumerate(buckets):
        found = stretches([each.numel() for each in bucket], least)
        for stretch in found:
            parts.append(Part(len(parts), index, bucket[stretch], is_whole=len(found) == 1))
    return parts


def stretches(sizes: Sequence[int], least: int) -> list[slice]:
    """Stretches of at least so many values each, or one.

    >>> stretches([3, 1, 5, 2, 2, 1], least=4)
    [slice(0, 2, None), slice(2, 3, None), slice(3, 6, None)]
    """
    found, start, num_values, rest = [], 0, 0, sum(sizes)
    for index, size in enumerate(sizes):
        num_values += size
        rest -= size
        if (num_values >= least and rest >= least) or index == len(sizes) - 1:
            found.append(slice(start, index + 1))
            start, num_values = index + 1, 0
    return found


def _buckets_of(parts: Sequence[Part]) -> Buckets:
    buckets: Buckets = []
    for part in parts:
        if part.bucket == len(buckets):
            buckets.append(())
        buckets[part.bucket] += part.parameters
    return buckets


def _alike(one: Buckets, other: Buckets) -> bool:
    """Whether they are the same parameters, by identity: tensors do not compare as a whole."""
    return [[id(each) for each in bucket] for bucket in one] == [
        [id(each) for each in bucket] for bucket in other
    ]
