"""Integers of a shared scale: payloads whose sum is a payload (Sapio et al. 2021, SwitchML; Li et al. 2024, THC).

If all ranks divide by the same step before they round, the sum of their integers is the integers of the sum, and
whoever sums (a rank, a switch, a parameter server) needs neither to decode nor to encode again, so no error is added.
The scale follows from the largest magnitude over all ranks: an all-reduce of one number, by maximum.

Against overflow: with b bits and n contributions, no integer of one of them exceeds (2^(b-1) - 1) // n in magnitude,
so no sum of n leaves the b bits. n counts every encode that is summed, directly or in sums of sums.

Not here: how the ranks agree on the largest magnitude.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, prod, sqrt
from typing import Any

import numpy as np

from thinwire.codec.base import Array, Codec, Floats, Payload, Shape, State
from thinwire.codec.kernels.homomorphic import add_integers, round_values, scale_integers
from thinwire.codec.kernels.low_rank import largest_magnitude
from thinwire.errors import CodecError, UsageError

_HEAD = struct.Struct("<fI")  # the largest magnitude, and how many contributions are in the sum
_WIDTHS = (8, 16, 32)


@dataclass(frozen=True)
class Homomorphic(Codec):
    """Multiples of a step that all contributions share.

    The state is one number, the largest magnitude of any contribution; what exceeds it is cut off there. At 0, which
    is the initial state, an encode takes its own tensor's, which is only right if nothing is summed.

    Payload: the largest magnitude (float32), the number of contributions (32 bits), the integers.

    Args:
        bits: of an integer: 8, 16 or 32.
        num_contributions: how many payloads may be summed.
        stochastic: round up or down at random, without bias, instead of to the nearest.

    Raises:
        UsageError: if the numbers make no sense.

    >>> codec = Homomorphic(bits=16, num_contributions=2)
    >>> agreed = (np.array([2.0], np.float32),)
    >>> payloads = [codec.encode(np.full(2, x, np.float32), agreed, seed=1).payload for x in (0.5, 2)]
    >>> codec.decode(codec.sum_payloads(payloads, (2,)), (2,)).round(3)
    array([2.5, 2.5], dtype=float32)
    """

    bits: int = 8
    num_contributions: int = 8
    stochastic: bool = True

    def __post_init__(self) -> None:
        if self.bits not in _WIDTHS:
            raise UsageError(f"homomorphic: expected bits of 8, 16 or 32, found {self.bits}")
        if not 1 <= self.num_contributions < 2 ** (self.bits - 1):
            most = 2 ** (self.bits - 1) - 1
            raise UsageError(
                f"homomorphic: expected 1 to {most} contributions of {self.bits} bits, found {self.num_contributions}"
            )

    @property
    def limit(self) -> int:
        """The largest magnitude of an integer of one contribution."""
        return int((2 ** (self.bits - 1) - 1) // self.num_contributions)

    @property
    def is_unbiased(self) -> bool:
        """With stochastic rounding, and as long as nothing is cut off."""
        return self.stochastic

    def payload_bound(self, shape: Shape) -> int:
        """Exactly the head and the integers."""
        return _HEAD.size + prod(shape) * self.bits // 8

    def error_bound(self, shape: Shape) -> float:
        """For a tensor's own largest magnitude: a step for each value, half of it to the nearest."""
        step = (1.0 if self.stochastic else 0.5) / self.limit
        return sqrt(prod(shape)) * step * (1 + 1e-6)

    def initial_state(self, shape: Shape) -> State:
        """No agreed magnitude."""
        return (np.zeros(1, np.float32),)

    def encode_into(
        self, values: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        """Round; see ``Codec.encode_into``."""
        np.copyto(next_state[0], state[0])
        largest = float(state[0][0]) or float(largest_magnitude(values.reshape(-1)))
        payload[: _HEAD.size] = np.frombuffer(_HEAD.pack(largest, 1), np.uint8)
        factor = self.limit / largest if largest else 0.0
        integers = np.empty(values.size, self._integers)
        seed64 = np.uint64(seed % 2**64)
        round_values(values.reshape(-1), factor, self.limit, self.stochastic, seed64, integers)
        self._write(integers, payload)
        return self.payload_bound(values.shape)

    def sum_payloads(self, payloads: Sequence[Payload], shape: Shape) -> Payload:
        """The payload of the sum of what ``payloads`` stand for, exact.

        Raises:
            CodecError: if one of them is no payload of this shape, if their scales differ, or if they are more
                contributions than ``num_contributions`` in all.
        """
        heads = [self._head(payload, shape) for payload in payloads]
        total = sum(count for _, count in heads)
        if not heads or total > self.num_contributions:
            raise CodecError(
                f"homomorphic: expected 1 to {self.num_contributions} contributions, found {total}: set "
                "num_contributions to the number of ranks"
            )
        if len({largest for largest, _ in heads}) > 1:
            raise CodecError(
                f"homomorphic: expected payloads of one scale, found the largest magnitudes {[h[0] for h in heads]}: "
                "agree on one and pass it as the state"
            )
        sums = np.zeros(prod(shape), np.int64)
        for payload, (_, count) in zip(payloads, heads, strict=True):
            if not add_integers(self._read(payload), count * self.limit, sums):
                raise self._out_of_range(count)
        out = np.empty(self.payload_bound(shape), np.uint8)
        out[: _HEAD.size] = np.frombuffer(_HEAD.pack(heads[0][0], total), np.uint8)
        self._write(sums.astype(self._integers), out)
        return out

    def decode_into(self, payload: Payload, out: Floats) -> None:
        """Multiply with the step; see ``Codec.decode_into``."""
        self._decode(payload, out, add=False)

    def add_decoded(self, payload: Payload, out: Floats) -> None:
        """Multiply and add in one pass."""
        self._decode(payload, out, add=True)

    def _decode(self, payload: Payload, out: Floats, *, add: bool) -> None:
        largest, count = self._head(payload, out.shape)
        step, most = largest / self.limit, count * self.limit
        if not scale_integers(self._read(payload), most, step, add, out.reshape(-1)):
            raise self._out_of_range(count)

    @property
    def _integers(self) -> np.dtype[Any]:
        return np.dtype(f"i{self.bits // 8}")

    def _write(self, integers: Array, payload: Payload) -> None:
        little = integers.astype(self._integers.newbyteorder("<"), copy=False).view(np.uint8)
        payload[_HEAD.size : _HEAD.size + little.size] = little

    def _read(self, payload: Payload) -> Array:
        aligned = payload[_HEAD.size :].copy()
        return aligned.view(self._integers.newbyteorder("<")).astype(self._integers, copy=False)

    def _head(self, payload: Array, shape: Shape) -> tuple[float, int]:
        self.check_size(payload.size, shape)
        largest, count = _HEAD.unpack(payload[: _HEAD.size].tobytes())
        if not (isfinite(largest) and largest >= 0 and 1 <= count <= self.num_contributions):
            raise CodecError(
                f"homomorphic: expected a finite magnitude and 1 to {self.num_contributions} contributions, "
                f"found {largest} and {count}"
            )
        return largest, count

    def _out_of_range(self, count: int) -> CodecError:
        return CodecError(
            f"homomorphic: expected integers up to {count * self.limit} for {count} contributions, found a larger one"
        )
