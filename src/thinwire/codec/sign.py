"""One bit for each value, its sign, and one scale for the whole tensor.

Bernstein et al. 2018 (signSGD); Karimireddy et al. 2019 (the scale: the mean magnitude, which has the least error).
For a scale for each block use ``quantize(bits=1)``, which is faster, too.

Payload: the float32 scale, then the signs in order, from the lowest bit up; 1 is plus, as it is of zeros.

Values that are not finite: all of the tensor is decoded as NaN, and error feedback leaves the residual as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import numpy as np

from thinwire.codec.base import Array, Codec, Floats, Payload, Shape, State
from thinwire.codec.kernels.sign_numpy import COLUMNS

_NO_RESIDUAL = np.empty(0, np.float32)


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
        return self._encode(values, _NO_RESIDUAL, payload)

    def encode_with_residual(
        self, values: Floats, residual: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        return self._encode(values, residual.reshape(-1), payload)

    def _encode(self, values: Floats, residual: Array, payload: Payload) -> int:
        flat = values.reshape(-1)
        columns = np.zeros(COLUMNS)
        _kernels().add_magnitudes(flat, residual, columns)
        scale = _mean(columns, flat.size)
        num_bytes = self.payload_bound(values.shape)
        payload[:4] = np.array([scale], "<f4").view(np.uint8)
        is_owed = residual.size > 0 and bool(np.isfinite(scale))
        _kernels().take_signs(flat, residual, scale, is_owed, payload[4:num_bytes])
        return num_bytes

    def decode_into(self, payload: Payload, out: Floats) -> None:
        self._decode(payload, out, is_added=False)

    def add_decoded(self, payload: Payload, out: Floats) -> None:
        self._decode(payload, out, is_added=True)

    def _decode(self, payload: Payload, out: Floats, is_added: bool) -> None:
        self.check_size(payload.size, out.shape)
        scale = payload[:4].copy().view("<f4")[0].astype(np.float32)
        _kernels().put_signs(payload[4:], scale, is_added, out.reshape(-1))


def _mean(columns: Array, num_values: int) -> np.float32:
    """Of magnitudes, which ``columns`` hold the sums of; NaN if it is not finite."""
    sums = columns
    with np.errstate(all="ignore"):
        while sums.size > 1:
            lower, upper = np.split(sums, 2)
            sums = lower + upper
        mean = np.float32(sums[0] / max(1, num_values))
    return mean if np.isfinite(mean) else np.float32(np.nan)


@cache
def _kernels() -> Any:
    from thinwire.codec.kernels import sign

    return sign
