"""One bit for each value, its sign, and one scale for the whole tensor.

Bernstein et al. 2018 (signSGD); Karimireddy et al. 2019 (the scale: the mean magnitude, which has the least error).
For a scale for each block use ``quantize(bits=1)``, which is faster, too.

Payload: the float32 scale, then the signs in order, from the lowest bit up; 1 is plus, as it is of zeros.

Values that are not finite: all of the tensor is decoded as NaN, and error feedback leaves the residual as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from thinwire.codec.base import Array, Codec, Floats, Payload, Shape, State
from thinwire.errors import CodecError

_COLUMNS = 4096


@dataclass(frozen=True)
class Sign(Codec):
    """The sign of each value times the mean magnitude.

    >>> codec = Sign()
    >>> codec.decode(codec.encode(np.array([3, -1, 2], np.float32)).payload, (3,)).tolist()
    [2.0, -2.0, 2.0]
    """

    def payload_bound(self, shape: Shape) -> int:
        return 4 + (prod(shape) + 7) // 8

    def error_bound(self, shape: Shape) -> float:
        return 1 + 1e-6

    def encode_into(
        self, values: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        flat = values.reshape(-1)
        scale = _mean_magnitude(flat)
        num_bytes = self.payload_bound(values.shape)
        payload[:4] = np.array([scale], "<f4").view(np.uint8)
        payload[4:num_bytes] = np.packbits(flat >= 0, bitorder="little")
        return num_bytes

    def encode_with_residual(
        self, values: Floats, residual: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        with np.errstate(all="ignore"):
            wanted = values + residual
        num_bytes = self.encode_into(wanted, state, seed, payload, next_state)
        lost = wanted - self.decode(payload[:num_bytes], values.shape)
        if np.isfinite(payload[:4].copy().view("<f4")[0]):
            residual[...] = lost
        return num_bytes

    def decode_into(self, payload: Payload, out: Floats) -> None:
        expected = self.payload_bound(out.shape)
        if payload.size != expected:
            raise CodecError(
                f"a payload of {self} for the shape {out.shape} has {expected} bytes, found {payload.size}"
            )
        scale = payload[:4].copy().view("<f4")[0].astype(np.float32)
        is_plus = np.unpackbits(payload[4:], count=out.size, bitorder="little").reshape(out.shape)
        np.copyto(out, np.where(is_plus, scale, -scale))


def _mean_magnitude(flat: Array) -> np.float32:
    """The mean of |x|, added in one order on every machine: rows on rows, then halves on halves."""
    full = flat.size // _COLUMNS * _COLUMNS
    with np.errstate(all="ignore"):
        total = np.zeros(_COLUMNS)
        for row in np.abs(flat[:full]).reshape(-1, _COLUMNS):
            total += row
        total[: flat.size - full] += np.abs(flat[full:])
        width = _COLUMNS
        while width > 1:
            width //= 2
            total[:width] += total[width : 2 * width]
        mean = np.float32(total[0] / max(1, flat.size))
    return mean if np.isfinite(mean) else np.float32(np.nan)
