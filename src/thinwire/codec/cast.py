"""Shorter floats: float16, bfloat16, and the 8 bit formats with a scale for each block.

IEEE 754 (float16); the OCP 8-bit Floating Point and Microscaling specifications (2023).

Payload: 16 bits a value, in order; or for 8 bits one scale byte for each block (a power of two plus 127), then a
byte for each value.

Values that are not finite: 16 bits keep them. A block of 8 bit floats with an infinity or NaN in it is decoded as
NaN throughout. Finite values too large for 16 bits become the largest there is, 65504 in float16. Error feedback takes
the residual of what is not finite to be zero.

Not here: blocks with fewer bits (``quantize``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any, Literal

import numpy as np

from thinwire.codec.base import Array, Codec, Floats, Payload, Shape, State
from thinwire.codec.kernels.floats_numpy import FLOAT8_E4M3, FLOAT8_E5M2, NOT_FINITE
from thinwire.codec.parallel import in_parts
from thinwire.errors import UsageError

_FLOAT8 = {"float8_e4m3": FLOAT8_E4M3, "float8_e5m2": FLOAT8_E5M2}
_NO_RESIDUAL = np.empty(0, np.float32)
_FACTORS = np.append(np.ldexp(np.float32(1), np.arange(NOT_FINITE) - 127), np.float32(np.nan))


@dataclass(frozen=True)
class Cast(Codec):
    """Each value rounded to the nearest of a shorter float.

    Attributes:
        to: ``float16``, ``bfloat16``, ``float8_e4m3`` or ``float8_e5m2``.
        block: values that share a scale, for 8 bits; a multiple of 8 up to 65536.

    >>> codec = Cast("bfloat16")
    >>> codec.decode(codec.encode(np.array([1, 3.14159], np.float32)).payload, (2,)).tolist()
    [1.0, 3.140625]
    """

    to: Literal["float16", "bfloat16", "float8_e4m3", "float8_e5m2"]
    block: int = 32

    def __post_init__(self) -> None:
        if self.to not in ("float16", "bfloat16", *_FLOAT8):
            raise UsageError(f"cast goes to float16, bfloat16, {' or '.join(_FLOAT8)}, not {self.to!r}")
        if not 8 <= self.block <= 1 << 16 or self.block % 8:
            raise UsageError(f"cast takes a block that is a multiple of 8 up to 65536, not {self.block}")

    def payload_bound(self, shape: Shape) -> int:
        size = prod(shape)
        return size + -(-size // self.block) if self.to in _FLOAT8 else 2 * size

    def error_bound(self, shape: Shape) -> float:
        """float16 may lose all of a tensor that is too small or too large for it."""
        return {"float16": 1.0, "bfloat16": 2.0**-8, "float8_e4m3": 0.063, "float8_e5m2": 0.126}[self.to]

    def encode_into(
        self, values: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        flat = values.reshape(-1)
        if self.to == "bfloat16":
            kernel = _kernels().to_bfloat16
            return self._encode_16(
                payload, flat.size, lambda part, out: kernel(flat[part].view(np.uint32), out)
            )
        if self.to == "float16":
            kernel = _kernels().to_float16
            return self._encode_16(payload, flat.size, lambda part, out: kernel(flat[part], out))
        return self._encode_8(flat, _NO_RESIDUAL, payload)

    def encode_with_residual(
        self, values: Floats, residual: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        flat, owed = values.reshape(-1), residual.reshape(-1)
        if self.to in _FLOAT8:
            return self._encode_8(flat, owed, payload)
        kernel = _kernels().owe_bfloat16 if self.to == "bfloat16" else _kernels().owe_float16
        return self._encode_16(payload, flat.size, lambda part, out: kernel(flat[part], owed[part], out))

    def _encode_8(self, flat: Array, owed: Array, payload: Payload) -> int:
        num_blocks = -(-flat.size // self.block)
        end = num_blocks + flat.size

        def encode_part(first: int, last: int) -> None:
            part = slice(first * self.block, last * self.block)
            scales, codes = payload[first:last], payload[num_blocks:end][part]
            _kernels().to_float8(flat[part], owed[part], _FLOAT8[self.to], self.block, scales, codes)

        in_parts(num_blocks, self.block, encode_part)
        return end

    def _encode_16(self, payload: Payload, size: int, write: Callable[[slice, Array], None]) -> int:
        """Have the 16 bits of each part of the values written where they belong."""
        halves = _aligned(payload[: 2 * size], np.uint16)
        in_parts(
            -(-size // self.block),
            self.block,
            lambda first, last: write(part := slice(first * self.block, last * self.block), halves[part]),
        )
        if not np.may_share_memory(halves, payload):
            payload[: 2 * size] = halves.view(np.uint8)
        return 2 * size

    def decode_into(self, payload: Payload, out: Floats) -> None:
        self.check_size(payload.size, out.shape)
        flat = out.reshape(-1)
        if self.to == "bfloat16":
            halves = _aligned(payload, np.uint16, is_read=True)
            self._in_parts(
                flat, lambda part: _kernels().from_bfloat16(halves[part], flat[part].view(np.uint32))
            )
        elif self.to == "float16":
            halves = _aligned(payload, np.uint16, is_read=True)
            self._in_parts(flat, lambda part: _kernels().from_float16(halves[part], flat[part]))
        else:
            flat[:] = -0.0
            self.add_decoded(payload, out)

    def add_decoded(self, payload: Payload, out: Floats) -> None:
        self.check_size(payload.size, out.shape)
        flat = out.reshape(-1)
        if self.to == "bfloat16":
            halves = _aligned(payload, np.uint16, is_read=True)
            self._in_parts(flat, lambda part: _kernels().add_bfloat16(halves[part], flat[part]))
        elif self.to == "float16":
            halves = _aligned(payload, np.uint16, is_read=True)
            self._in_parts(flat, lambda part: _kernels().add_float16(halves[part], flat[part]))
        else:
            num_blocks = -(-flat.size // self.block)
            scales = payload[:num_blocks]
            factors = _FACTORS[scales]
            _kernels().add_float8(payload[num_blocks:], factors, _FLOAT8[self.to], self.block, flat)

    def _in_parts(self, flat: Array, work: Any) -> None:
        num_blocks = -(-flat.size // self.block)
        in_parts(num_blocks, self.block, lambda a, b: work(slice(a * self.block, b * self.block)))


def _aligned(payload: Payload, kind: Any, is_read: bool = False) -> Array:
    """The bytes as little-endian numbers where they lie, or in a place of their own where they lie badly."""
    if payload.ctypes.data % np.dtype(kind).itemsize == 0:
        return payload.view(kind)
    return payload.copy().view(kind) if is_read else np.empty(payload.size // np.dtype(kind).itemsize, kind)


@cache
def _kernels() -> Any:
    from thinwire.codec.kernels import floats

    return floats
