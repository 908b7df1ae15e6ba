"""Random-k: values at places that a seed chooses, and that need no bytes (Konecny et al. 2016; Stich et al. 2018).

The values are cut into k equal parts and one of each is kept. Ranks that encode with the same seed keep the same
places, so their sums are sums of what was sent.

Not here: how ranks agree on a seed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, prod

import numpy as np

from thinwire.codec.base import Array, Codec, Floats, Payload, Shape, State
from thinwire.codec.combining import count_or_fraction
from thinwire.codec.kernels.random_k import places
from thinwire.codec.plain import Plain
from thinwire.errors import CodecError

_SEED_BYTES = 8
_LARGEST = np.finfo(np.float32).max


@dataclass(frozen=True)
class RandomK(Codec):
    """Keep one value, chosen by the seed, of each of k equal parts of the tensor.

    Payload: the seed (64 bits, lowest byte first), then the payload of ``values`` for the kept values as a flat tensor.

    Args:
        k: how many to keep: a count, or a fraction of the values if it is below 1.
        unbiased: multiply each by the length of its part, so that the mean over all seeds is the tensor; for use
            without error feedback, under which the plain values do better.
        values: the codec of what is kept.

    Raises:
        UsageError: if k makes no sense.

    >>> codec = RandomK(0.5, unbiased=False)
    >>> codec.decode(codec.encode(np.ones(6, np.float32), seed=1).payload, (6,)).sum()
    np.float32(3.0)
    """

    k: float
    unbiased: bool = True
    values: Codec = field(default_factory=Plain)

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", count_or_fraction(self.k, self.name()))

    @property
    def is_unbiased(self) -> bool:
        """If asked for, and the values are coded without bias."""
        return self.unbiased and self.values.is_unbiased

    def num_kept(self, shape: Shape) -> int:
        """How many values are kept."""
        size = prod(shape)
        return ceil(self.k * size) if self.k < 1 else min(int(self.k), size)

    def payload_bound(self, shape: Shape) -> int:
        """The seed and the values."""
        return _SEED_BYTES + self.values.payload_bound((self.num_kept(shape),))

    def payload_bytes(self, shape: Shape) -> int | None:
        """Exact if that of the values is."""
        of_values = self.values.payload_bytes((self.num_kept(shape),))
        return None if of_values is None else _SEED_BYTES + of_values

    def error_bound(self, shape: Shape) -> float:
        """All that is kept may be zero, or what is multiplied all there is."""
        num_kept = self.num_kept(shape)
        if not num_kept:
            return 0.0
        of_values = self.values.error_bound((num_kept,))
        if num_kept == prod(shape):
            return of_values
        factor = -(-prod(shape) // num_kept) if self.unbiased else 1
        return max(1.0, factor - 1 + factor * of_values)

    def initial_state(self, shape: Shape) -> State:
        """That of ``values``."""
        return self.values.initial_state((self.num_kept(shape),))

    def encode_into(
        self, values: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        """Pick the values; see ``Codec.encode_into``."""
        payload[:_SEED_BYTES] = np.frombuffer((seed % 2**64).to_bytes(_SEED_BYTES, "little"), np.uint8)
        where, factors = self._places(values.shape, seed)
        chosen = values.reshape(-1)[where]
        with np.errstate(over="ignore"):
            chosen *= factors
        np.clip(chosen, -_LARGEST, _LARGEST, out=chosen)
        return _SEED_BYTES + self.values.encode_into(chosen, state, seed, payload[_SEED_BYTES:], next_state)

    def decode_into(self, payload: Payload, out: Floats) -> None:
        """Zeros but for what was kept; see ``Codec.decode_into``."""
        where, chosen = self._read(payload, out.shape)
        out.fill(0)
        out.reshape(-1)[where] = chosen

    def add_decoded(self, payload: Payload, out: Floats) -> None:
        """Touches only what was kept."""
        where, chosen = self._read(payload, out.shape)
        out.reshape(-1)[where] += chosen

    def _read(self, payload: Payload, shape: Shape) -> tuple[Array, Floats]:
        if payload.size < _SEED_BYTES:
            raise CodecError(f"random_k: expected a seed of {_SEED_BYTES} bytes, found {payload.size}")
        where, _ = self._places(shape, int.from_bytes(payload[:_SEED_BYTES].tobytes(), "little"))
        return where, self.values.decode(payload[_SEED_BYTES:], (where.size,))

    def _places(self, shape: Shape, seed: int) -> tuple[Array, Floats]:
        where = np.empty(self.num_kept(shape), np.int64)
        factors = np.ones(where.size, np.float32)
        places(np.uint64(seed % 2**64), prod(shape), self.unbiased, where, factors)
        return where, factors
