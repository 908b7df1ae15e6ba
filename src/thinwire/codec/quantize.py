"""Blockwise quantisation: a few bits for each value, and a scale for each block of them.

Alistarh et al. 2017 (QSGD: stochastic rounding), Dettmers et al. 2022 (blocks), Max 1960 and Lloyd 1982 (levels),
Vargaftik et al. 2022 (EDEN: the unbiased scale).

Payload: a float32 scale for each block, then each block's codes, packed as ``kernels.quantize_numpy`` says; the last
block is padded to a multiple of 8 values. The value of a code is scale x level.

Values that are not finite: every value of a block with an infinity or NaN in it is decoded as NaN, and error feedback
leaves that block's residual as it was. A block whose largest magnitude is below 2**-100 is decoded as zeros.

Not here: rotation before it (``rotate``), entropy coding behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import prod, sqrt
from typing import Any, Literal

import numpy as np

from thinwire.codec.base import Array, Codec, Floats, Payload, Shape, State
from thinwire.codec.kernels import levels as tables
from thinwire.codec.kernels.quantize_numpy import (
    CELLS,
    LEAST_SQUARES,
    PLACE_SHIFT,
    STOCHASTIC,
    UNBIASED,
    UNIFORM,
    units_of,
)
from thinwire.codec.kernels.random_bits import block_keys
from thinwire.codec.parallel import in_parts
from thinwire.errors import UsageError

_NO_RESIDUAL = np.empty(0, np.float32)
_MOST_BLOCK = 1 << 16


@dataclass(frozen=True)
class Quantize(Codec):
    """``bits`` for each value and 32 for each ``block`` of them.

    Attributes:
        bits: 1, 2, 3, 4, 6 or 8.
        block: values that share a scale, a multiple of 8 up to 65536.
        levels: ``lloyd_max``: least error where values are spread as a normal distribution is, whatever its width;
            ``uniform``: evenly from minus the largest magnitude to that, so that no value is far off. By default
            Lloyd-Max up to 4 bits.
        rounding: ``nearest``, or ``stochastic``, which is unbiased and has uniform levels.
        scale: of Lloyd-Max levels: ``least_squares`` has the least error, and never more than encoding nothing;
            ``unbiased`` is EDEN's: it makes rotated values unbiased (``rotate``), at somewhat more error.

    >>> codec = Quantize(bits=8)
    >>> values = np.array([1.0, -0.5, 0.25], np.float32)
    >>> payload = codec.encode(values).payload
    >>> payload.nbytes, codec.decode(payload, (3,)).round(2).tolist()
    (12, [1.0, -0.5, 0.25])
    """

    bits: int
    block: int = 256
    levels: Literal["lloyd_max", "uniform"] | None = None
    rounding: Literal["nearest", "stochastic"] = "nearest"
    scale: Literal["least_squares", "unbiased"] = "least_squares"

    def __post_init__(self) -> None:
        if self.bits not in tables.BITS:
            raise UsageError(f"quantize takes bits of {', '.join(map(str, tables.BITS))}, not {self.bits}")
        if not 8 <= self.block <= _MOST_BLOCK or self.block % 8:
            raise UsageError(
                f"quantize takes a block that is a multiple of 8 up to {_MOST_BLOCK}, not {self.block}"
            )
        if self.rounding == "stochastic" and self.levels == "lloyd_max":
            raise UsageError(
                "Lloyd-Max levels do not reach the largest values, so they cannot be rounded without bias; "
                "write levels=uniform, or rotate(quantize(bits=4, scale=unbiased))"
            )
        if self.scale == "unbiased" and self._is_uniform:
            raise UsageError(
                "the unbiased scale is for Lloyd-Max levels and rounding=nearest; write levels=lloyd_max"
            )

    @property
    def is_unbiased(self) -> bool:
        return self.rounding == "stochastic"

    @property
    def _is_uniform(self) -> bool:
        by_default = self.bits > 4 or self.rounding == "stochastic"
        return by_default if self.levels is None else self.levels == "uniform"

    @property
    def rule(self) -> int:
        """Which of the four of ``kernels.quantize_numpy`` gives a value its level, and a block its scale."""
        if self.rounding == "stochastic":
            return STOCHASTIC
        if self._is_uniform:
            return UNIFORM
        return UNBIASED if self.scale == "unbiased" else LEAST_SQUARES

    @property
    def table(self) -> Array:
        """The levels, ascending whole numbers."""
        return tables.uniform(self.bits) if self._is_uniform else tables.lloyd_max(self.bits)

    def payload_bound(self, shape: Shape) -> int:
        size = prod(shape)
        return 4 * -(-size // self.block) + -(-size // 8) * self.bits

    def error_bound(self, shape: Shape) -> float:
        width = max(1, min(self.block, prod(shape)))
        if self._is_uniform:
            steps = 2 if self.rounding == "stochastic" else 1
            return steps * sqrt(width) / ((1 << self.bits) - 1) + 1e-5
        if (
            self.scale == "unbiased"
        ):  # the squared cosine of x and q is at least their least mean over their largest
            least, largest = self.table[len(self.table) // 2], self.table[-1]
            return sqrt(width * float(largest) / float(least))
        return sqrt(1 + 0.25 / units_of(self.block) ** 2) + 1e-5

    def encode_into(
        self, values: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        return self._encode(values, _NO_RESIDUAL, seed, payload)

    def encode_with_residual(
        self, values: Floats, residual: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        return self._encode(values, residual.reshape(-1), seed, payload)

    def _encode(self, values: Floats, residual: Array, seed: int, payload: Payload) -> int:
        source = values.reshape(-1)
        num_blocks = -(-source.size // self.block)
        end = self.payload_bound(values.shape)
        scales = np.empty(num_blocks, np.float32)
        packed = payload[4 * num_blocks : end]
        keys = block_keys(seed, 0, num_blocks if self.rounding == "stochastic" else 0)
        bits, block, units = self.bits, self.block, units_of(self.block)
        cells = tables.cells(bits, CELLS) if bits > 4 else np.empty(0, np.uint8)

        def encode_part(first: int, last: int) -> None:
            part = slice(first * block, last * block)
            _kernels().encode(
                source[part],
                residual[part],
                block,
                bits,
                self.rule,
                units,
                self.table,
                tables.limits(bits, units),
                tables.words(bits, PLACE_SHIFT),
                cells,
                keys[first:last],
                scales[first:last],
                packed[first * block * bits // 8 : last * block * bits // 8],
            )

        in_parts(num_blocks, block, encode_part)
        payload[: 4 * num_blocks] = scales.astype("<f4", copy=False).view(np.uint8)
        return end

    def decode_into(self, payload: Payload, out: Floats) -> None:
        self._decode(payload, out, is_added=False)

    def add_decoded(self, payload: Payload, out: Floats) -> None:
        self._decode(payload, out, is_added=True)

    def _decode(self, payload: Payload, out: Floats, is_added: bool) -> None:
        self.check_size(payload.size, out.shape)
        flat = out.reshape(-1)
        num_blocks = -(-flat.size // self.block)
        scales = payload[: 4 * num_blocks].copy().view("<f4").astype(np.float32, copy=False)
        packed = payload[4 * num_blocks :]
        bits, block = self.bits, self.block

        def decode_part(first: int, last: int) -> None:
            _kernels().decode(
                scales[first:last],
                packed[first * block * bits // 8 : last * block * bits // 8],
                block,
                bits,
                self._is_uniform,
                self.table,
                is_added,
                flat[first * block : last * block],
            )

        in_parts(num_blocks, block, decode_part)


@cache
def _kernels() -> Any:
    from thinwire.codec.kernels import quantize

    return quantize
