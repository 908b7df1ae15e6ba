"""Error feedback: what one payload lacked is added to the next tensor before it is encoded.

Seide et al. 2014; Karimireddy et al. 2019. The state is the residual, then the state of the codec inside. So the sum
of what was decoded, plus the residual, is the sum of what was put in, and training follows that sum
even where each payload is rough.

Not here: the one-pass forms of this for single codecs, which are their ``encode_with_residual``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thinwire.codec.base import Codec, Floats, Payload, Shape, State


@dataclass(frozen=True)
class Feedback(Codec):
    """``inner``, with something that is owed kept in the state: the payload is the inner codec's."""

    inner: Codec

    @property
    def has_feedback(self) -> bool:
        """Yes: it is what this codec does."""
        return True

    def payload_bound(self, shape: Shape) -> int:
        return self.inner.payload_bound(shape)

    def payload_bytes(self, shape: Shape) -> int | None:
        return self.inner.payload_bytes(shape)

    def decode_into(self, payload: Payload, out: Floats) -> None:
        self.inner.decode_into(payload, out)

    def add_decoded(self, payload: Payload, out: Floats) -> None:
        self.inner.add_decoded(payload, out)


@dataclass(frozen=True)
class ErrorFeedback(Feedback):
    """``inner``, with what it loses kept for the next time.

    For values that are not finite see ``inner``.

    >>> from thinwire.codec.quantize import Quantize
    >>> codec = ErrorFeedback(Quantize(bits=1))
    >>> values = np.array([3.0, 1.0], np.float32)
    >>> payload, state = codec.encode(values)
    >>> codec.decode(payload, (2,)).round(2).tolist(), state[0].round(2).tolist()
    ([2.0, 2.0], [1.0, -1.0])
    """

    @property
    def is_lossless(self) -> bool:
        return self.inner.is_lossless

    def error_bound(self, shape: Shape) -> float:
        """From the initial state, in which the residual is zero."""
        return self.inner.error_bound(shape)

    def initial_state(self, shape: Shape) -> State:
        return (np.zeros(shape, np.float32), *self.inner.initial_state(shape))

    def encode_into(
        self, values: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        residual = next_state[0]
        if residual is not state[0]:
            residual[...] = state[0]
        return self.inner.encode_with_residual(values, residual, state[1:], seed, payload, next_state[1:])
