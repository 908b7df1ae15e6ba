"""The values themselves: what a combinator uses where nothing should be lost."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from thinwire.codec.base import Codec, Floats, Payload, Shape, State

_LITTLE = np.dtype("<f4")


@dataclass(frozen=True)
class Plain(Codec):
    """float32 as it is: four bytes a value, lowest byte first.

    >>> Plain().encode(np.array([1.0], np.float32)).payload.tolist()
    [0, 0, 128, 63]
    """

    @property
    def is_lossless(self) -> bool:
        """Always, NaNs included."""
        return True

    def payload_bound(self, shape: Shape) -> int:
        """Exactly four bytes a value."""
        return 4 * prod(shape)

    def error_bound(self, shape: Shape) -> float:
        """None."""
        return 0.0

    def encode_into(
        self, values: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        """Copy; see ``Codec.encode_into``."""
        payload[: values.nbytes] = values.reshape(-1).astype(_LITTLE, copy=False).view(np.uint8)
        return values.nbytes

    def decode_into(self, payload: Payload, out: Floats) -> None:
        """Copy; see ``Codec.decode_into``."""
        self.check_size(payload.size, out.shape)
        out.reshape(-1)[:] = payload.view(_LITTLE)
