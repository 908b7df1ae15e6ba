"""A random rotation before another codec, which then finds values spread as a normal distribution, whatever came.

DRIVE (Vargaftik et al. 2021) is ``rotate(quantize(bits=1, block=4096))``, EDEN (Vargaftik et al. 2022) the same at
more bits; ``scale=unbiased`` in the quantiser is what makes them unbiased. That holds for uniformly random rotations;
the randomised Hadamard transform here comes near it where no few values make up most of a chunk. With stochastic
rounding inside it is unbiased exactly.

Payload: the seed of the rotation in 8 bytes, then the payload inside.

Values that are not finite spoil their chunk of ``width``: ``inner`` is given NaN. Values below 2**-84 may be decoded
as zeros.

Not here: the quantiser (``quantize``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import numpy as np

from thinwire.codec.base import Array, Codec, Floats, Payload, Shape, State
from thinwire.codec.kernels.random_bits import block_keys
from thinwire.codec.parallel import in_parts
from thinwire.errors import CodecError, UsageError

_SEED_BYTES = 8
_MOST_WIDTH = 1 << 16


@dataclass(frozen=True)
class Rotate(Codec):
    """``inner`` after a randomised Hadamard transform of each ``width`` values.

    Attributes:
        inner: what encodes the rotated values, as one flat tensor.
        width: values that are rotated together, a power of two from 2 to 65536.

    >>> from thinwire.codec.quantize import Quantize
    >>> codec = Rotate(Quantize(bits=4, block=1024), width=1024)
    >>> values = np.zeros(1024, np.float32)
    >>> values[7] = 32
    >>> decoded = codec.decode(codec.encode(values, seed=1).payload, (1024,))
    >>> abs(float(decoded[7]) - 32) < 0.5
    True
    """

    inner: Codec
    width: int = 4096

    def __post_init__(self) -> None:
        if not 2 <= self.width <= _MOST_WIDTH or self.width & (self.width - 1):
            raise UsageError(
                f"rotate takes a width that is a power of two from 2 to {_MOST_WIDTH}, not {self.width}"
            )

    @property
    def is_unbiased(self) -> bool:
        return self.inner.is_unbiased

    def payload_bound(self, shape: Shape) -> int:
        return _SEED_BYTES + self.inner.payload_bound((prod(shape),))

    def payload_bytes(self, shape: Shape) -> int | None:
        inside = self.inner.payload_bytes((prod(shape),))
        return None if inside is None else _SEED_BYTES + inside

    def error_bound(self, shape: Shape) -> float:
        return self.inner.error_bound((prod(shape),)) * (1 + 1e-5) + 1e-5

    def initial_state(self, shape: Shape) -> State:
        return self.inner.initial_state((prod(shape),))

    def encode_into(
        self, values: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        rotated = values.flatten()
        self._rotate(rotated, seed)
        _write_seed(payload, seed)
        return _SEED_BYTES + self.inner.encode_into(rotated, state, seed, payload[_SEED_BYTES:], next_state)

    def encode_with_residual(
        self, values: Floats, residual: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        residual += values
        flat = residual.reshape(-1)
        self._rotate(flat, seed)
        _write_seed(payload, seed)
        nothing = np.full(flat.size, -0.0, np.float32)  # keeps the sign of zeros
        num_bytes = self.inner.encode_with_residual(
            nothing, flat, state, seed, payload[_SEED_BYTES:], next_state
        )
        self._rotate_back(flat, seed, forgets_nan=True)
        return _SEED_BYTES + num_bytes

    def decode_into(self, payload: Payload, out: Floats) -> None:
        if payload.size < _SEED_BYTES:
            raise CodecError(
                f"a payload of {self} begins with {_SEED_BYTES} bytes of seed, found {payload.size} in all"
            )
        flat = out.reshape(-1)
        self.inner.decode_into(payload[_SEED_BYTES:], flat)
        self._rotate_back(flat, int.from_bytes(payload[:_SEED_BYTES].tobytes(), "little"))

    def _rotate(self, flat: Array, seed: int) -> None:
        self._turn(_kernels().rotate, flat, seed)

    def _rotate_back(self, flat: Array, seed: int, *, forgets_nan: bool = False) -> None:
        self._turn(_kernels().rotate_back, flat, seed, forgets_nan)

    def _turn(self, kernel: Callable[..., None], flat: Array, seed: int, *options: bool) -> None:
        width = self.width
        num_chunks = -(-flat.size // width)
        keys = block_keys(seed, 0, 2 * num_chunks)
        in_parts(
            num_chunks,
            width,
            lambda first, end: kernel(
                flat[first * width : end * width], width, keys[2 * first : 2 * end], *options
            ),
        )


def _write_seed(payload: Payload, seed: int) -> None:
    payload[:_SEED_BYTES] = np.frombuffer((seed % 2**64).to_bytes(_SEED_BYTES, "little"), np.uint8)


@cache
def _kernels() -> Any:
    from thinwire.codec.kernels import hadamard

    return hadamard
