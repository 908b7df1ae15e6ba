"""Momentum correction and masking (Lin et al. 2018, Deep Gradient Compression, sections 3.1 and 3.2).

Momentum and sparse sending do not commute: a value that waits in a residual misses the momentum it would have had. So
momentum is applied before encoding: a velocity accumulates gradients, an accumulator velocities, and what is sent of
the accumulator is taken out of it. Where something was sent, the velocity starts again too, so that stale momentum does
not carry a value on past what was asked for.

The optimiser that uses the decoded values must have no momentum of its own.

Not here: residuals without momentum (``feedback``), and the outer optimiser's momentum (``training``).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from thinwire.codec.base import Floats, Payload, Shape, State
from thinwire.codec.feedback import Feedback
from thinwire.errors import UsageError


@dataclass(frozen=True)
class Momentum(Feedback):
    """Encode what velocities have accumulated: u = momentum u + x, v = v + u, and v less what was sent.

    The state is u, v and the codec's state. The payload is the codec's, of v. What is decoded of one encode is no
    approximation of x, so the error has no bound; over many encodes all of it is sent.

    Args:
        inner: what encodes v.
        momentum: at least 0, less than 1; with 0 this is error feedback.

    Raises:
        UsageError: if momentum is outside.

    >>> from thinwire.codec.top_k import TopK
    >>> codec, state = Momentum(TopK(1), momentum=0.5), None
    >>> for _ in range(2):
    ...     payload, state = codec.encode(np.array([4, 1], np.float32), state)
    >>> codec.decode(payload, (2,)), state[1]
    (array([4., 0.], dtype=float32), array([0. , 2.5], dtype=float32))
    """

    momentum: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise UsageError(f"momentum: expected a factor of 0 or more, less than 1, found {self.momentum}")

    @property
    def is_unbiased(self) -> bool:
        """No: it sends what came before, too."""
        return False

    def error_bound(self, shape: Shape) -> float:
        """None: see the class."""
        return inf

    def initial_state(self, shape: Shape) -> State:
        """Nothing moves and nothing is owed."""
        return (np.zeros(shape, np.float32), np.zeros(shape, np.float32), *self.inner.initial_state(shape))

    def encode_into(
        self, values: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        """Accumulate, encode, mask; see ``Codec.encode_into``."""
        (velocity, owed, *own), (next_velocity, next_owed, *own_next) = state, next_state
        np.multiply(velocity, np.float32(self.momentum), out=next_velocity)
        next_velocity += values
        np.copyto(next_owed, owed)
        num_bytes = self.inner.encode_with_residual(
            next_velocity, next_owed, tuple(own), seed, payload, tuple(own_next)
        )
        was_sent = self.inner.decode(payload[:num_bytes], values.shape) != 0
        np.copyto(next_velocity, np.float32(0), where=was_sent)
        return num_bytes
