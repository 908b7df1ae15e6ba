"""Parcels: what ``data_parallel`` sends as one message, and when the next forward pass needs it.

A large parameter is a parcel of its own and travels in place; small ones share one, because a message has a price
however small it is.

Not here: sending.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import Parameter

from thinwire.runtime.work import ThinwireWork


@dataclass
class Parcel:
    """Some parameters of one dtype and device.

    Attributes:
        index: its place among all, in the order of registration.
        parameters: whose gradients it carries.
        missing: those whose gradients are not there yet, in this backward pass, by identity.
        priority: larger ones are sent first.
        has_overflowed: a gradient in it was not finite, and was not sent.
        work: its transfer, while it is on its way or has landed and was not taken yet.
        gradients: of the parameters, in what travels.
    """

    index: int
    parameters: list[Parameter]
    missing: set[int] = field(default_factory=set)
    priority: int = 0
    has_overflowed: bool = False
    work: ThinwireWork | None = None
    gradients: list[Tensor] = field(default_factory=list)

    def expect(self) -> None:
        """A backward pass begins."""
        self.missing = {id(each) for each in self.parameters}
        self.has_overflowed = False

    @property
    def has_landed(self) -> bool:
        """Whether it has travelled, and was not taken yet."""
        return self.work is not None and self.work.is_completed()

    def pack(self) -> Tensor:
        """Take the gradients away from the parameters, and put them into one tensor to send.

        A parameter without a gradient gives zeros.
        """
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in self.parameters]
        for each in self.parameters:
            each.grad = None
        if len(gradients) == 1 and gradients[0].is_contiguous():
            self.gradients = gradients
            return gradients[0]
        flat = torch.cat([each.flatten() for each in gradients])
        pieces = flat.split([each.numel() for each in gradients])
        self.gradients = [piece.view_as(each) for piece, each in zip(pieces, gradients, strict=True)]
        return flat


def parcels_of(parameters: Sequence[Parameter], small_bytes: int) -> list[Parcel]:
    """Put small ones together, also where large ones are between them.

    The gradient of the first of them comes last, and its layer needs it first, so those of later layers cost it no more
    than their few bytes.

    Args:
        small_bytes: what a parcel of several parameters may hold.

    >>> sizes = [9, 1, 1, 9, 4]
    >>> parcels = parcels_of([Parameter(torch.zeros(size)) for size in sizes], small_bytes=16)
    >>> [[each.numel() for each in parcel.parameters] for parcel in parcels]
    [[9], [1, 1], [9], [4]]
    """
    parcels: list[Parcel] = []
    open_ones: dict[tuple[torch.dtype, torch.device], tuple[Parcel, int]] = {}
    for parameter in parameters:
        kind, num_bytes = (parameter.dtype, parameter.device), parameter.numel() * parameter.element_size()
        last, room = open_ones.get(kind, (None, 0))
        if last is None or num_bytes > room:
            last, room = Parcel(len(parcels), []), small_bytes
            parcels.append(last)
        last.parameters.append(parameter)
        if num_bytes <= small_bytes:
            open_ones[kind] = last, room - num_bytes
    return parcels
