"""Another codec for the first encodes of each tensor, while gradients change fast (Lin et al. 2018, DGC, section 3.3).

Not here: a codec that changes by degrees; a warm-up of a warm-up is one in steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thinwire.codec.base import Codec, Floats, Payload, Shape, State
from thinwire.codec.combining import keep_state, split_state
from thinwire.errors import CodecError, UsageError


@dataclass(frozen=True)
class WarmUp(Codec):
    """Encode with ``first`` the first ``num_encodes`` times, and with ``then`` from there on.

    The state is the number of encodes so far, and both codecs' states; the one that is not in use keeps its own.
    Payload: a byte, 0 for ``first`` and 1 for ``then``, and the codec's payload.

    Raises:
        UsageError: if the number is negative.

    >>> from thinwire.codec.plain import Plain
    >>> from thinwire.codec.top_k import TopK
    >>> codec, state = WarmUp(Plain(), TopK(1), num_encodes=2), None
    >>> sizes = []
    >>> for _ in range(3):
    ...     payload, state = codec.encode(np.ones(100, np.float32), state)
    ...     sizes.append(len(payload))
    >>> sizes
    [401, 401, 6]
    """

    first: Codec
    then: Codec
    num_encodes: int

    def __post_init__(self) -> None:
        if self.num_encodes < 0:
            raise UsageError(f"warm_up: expected num_encodes of 0 or more, found {self.num_encodes}")

    @property
    def is_lossless(self) -> bool:
        """If both are."""
        return self.first.is_lossless and self.then.is_lossless

    @property
    def is_unbiased(self) -> bool:
        """If both are."""
        return self.first.is_unbiased and self.then.is_unbiased

    def payload_bound(self, shape: Shape) -> int:
        """One byte, and the longer one."""
        return 1 + max(self.first.payload_bound(shape), self.then.payload_bound(shape))

    def payload_bytes(self, shape: Shape) -> int | None:
        """Exact if both are, and the same."""
        first, then = self.first.payload_bytes(shape), self.then.payload_bytes(shape)
        return None if first is None or first != then else 1 + first

    def error_bound(self, shape: Shape) -> float:
        """The larger one."""
        return max(self.first.error_bound(shape), self.then.error_bound(shape))

    def initial_state(self, shape: Shape) -> State:
        """No encode yet."""
        return (np.zeros(1, np.int64), *self.first.initial_state(shape), *self.then.initial_state(shape))

    def encode_into(
        self, values: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        """Whichever's turn it is; see ``Codec.encode_into``."""
        codec, own, own_next = self._turn(state, next_state, values.shape, payload)
        return 1 + codec.encode_into(values, own, seed, payload[1:], own_next)

    def encode_with_residual(
        self, values: Floats, residual: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        """Whichever's turn it is."""
        codec, own, own_next = self._turn(state, next_state, values.shape, payload)
        return 1 + codec.encode_with_residual(values, residual, own, seed, payload[1:], own_next)

    def decode_into(self, payload: Payload, out: Floats) -> None:
        """Whichever the first byte names; see ``Codec.decode_into``."""
        self._named_by(payload).decode_into(payload[1:], out)

    def add_decoded(self, payload: Payload, out: Floats) -> None:
        """Whichever the first byte names."""
        self._named_by(payload).add_decoded(payload[1:], out)

    def _turn(
        self, state: State, next_state: State, shape: Shape, payload: Payload
    ) -> tuple[Codec, State, State]:
        codecs = (self.first, self.then)
        before = tuple(split_state(state[1:], codecs, shape))
        after = tuple(split_state(next_state[1:], codecs, shape))
        num_done = int(state[0][0])
        turn = int(num_done >= self.num_encodes)
        next_state[0][0] = num_done + 1
        keep_state(before[1 - turn], after[1 - turn])
        payload[0] = turn
        return codecs[turn], before[turn], after[turn]

    def _named_by(self, payload: Payload) -> Codec:
        if not payload.size or payload[0] > 1:
            raise CodecError(f"warm_up: expected a first byte of 0 or 1, found {payload[:1].tolist()}")
        return self.then if payload[0] else self.first
