"""Blockwise quantisation on a device: ``codec.quantize``'s payload, bit for bit.

1, 2, 4 and 8 bits, to the nearest level: what ``quantize(bits=...)`` is by default, uniform levels, and EDEN's scale.
3 and 6 bits, stochastic rounding, and Lloyd-Max levels at 8 bits encode on the host.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from thinwire.codec.device.base import DeviceCodec, launch
from thinwire.codec.kernels import levels
from thinwire.codec.kernels.quantize_numpy import LARGEST, STOCHASTIC, UNBIASED, UNIFORM, units_of
from thinwire.codec.quantize import Quantize

_BITS = (1, 2, 4, 8)
_VALUES_OF_A_PROGRAM = 4096
_MOST_BLOCKS = 16  # of a program


class DeviceQuantize(DeviceCodec):
    """``Quantize`` where the values are.

    Args:
        codec: one that it ``is_for``.
    """

    codec: Quantize

    @staticmethod
    def is_for(codec: Quantize) -> bool:
        """Whether the kernels have the codec's bits, levels and rounding."""
        is_uniform = codec.rule == UNIFORM
        return codec.bits in _BITS and codec.rule != STOCHASTIC and (is_uniform or codec.bits <= 4)

    def __init__(self, codec: Quantize) -> None:
        super().__init__(codec)
        blocks = 1
        while blocks < _MOST_BLOCKS and 2 * blocks * codec.block <= _VALUES_OF_A_PROGRAM:
            blocks *= 2
        self._blocks = blocks
        self._num_warps = 4 if blocks > 4 else 1
        self._constants = {
            "BITS": codec.bits,
            "BLOCK": codec.block,
            "IS_UNIFORM": codec.rule == UNIFORM,
            "BLOCKS": blocks,
        }

    def _encode(self, values: Tensor, residual: Tensor | None, payload: Tensor) -> None:
        codec = self.codec
        num_blocks = -(-values.numel() // codec.block)
        launch(
            _kernels().encode,
            -(-num_blocks // self._blocks),
            values,
            values if residual is None else residual,
            payload[: 4 * num_blocks].view(torch.float32),
            payload[4 * num_blocks :],
            *_tables(codec, values.device),
            values.numel(),
            **self._constants,
            UNITS=units_of(codec.block),
            MOST_SCALE=LARGEST / float(codec.table[-1]),
            IS_UNBIASED=codec.rule == UNBIASED,
            HAS_RESIDUAL=residual is not None,
            num_warps=self._num_warps,
        )

    def _decode(self, payload: Tensor, out: Tensor, is_added: bool) -> None:
        num_blocks = -(-out.numel() // self.codec.block)
        _, table = _tables(self.codec, out.device)
        launch(
            _kernels().decode,
            -(-num_blocks // self._blocks),
            payload[: 4 * num_blocks].view(torch.float32),
            payload[4 * num_blocks :],
            table,
            out,
            out.numel(),
            **self._constants,
            IS_ADDED=is_added,
            num_warps=self._num_warps,
        )


@functools.cache
def _tables(codec: Quantize, device: torch.device) -> tuple[Tensor, Tensor]:
    """The borders between the positive levels, and the levels."""
    limits = levels.limits(min(codec.bits, 4), units_of(codec.block))
    both = (
        torch.tensor(numbers.tolist(), dtype=torch.int32, device=device) for numbers in (limits, codec.table)
    )
    borders, table = both
    return borders, table


@functools.cache
def _kernels() -> Any:
    from thinwire.codec.device.kernels import quantize

    return quantize
