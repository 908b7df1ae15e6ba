"""A codec for tests of what plans with codecs: so many bits a value, and nothing behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thinwire.codec.base import Codec, Floats, Payload, Shape, State
from thinwire.planner.forms import Form


@dataclass(frozen=True)
class Sized(Codec):
    """Announces ``bits`` a value, and sends zeros."""

    bits: float

    def payload_bound(self, shape: Shape) -> int:
        return int(np.ceil(self.bits * np.prod(shape) / 8))

    def error_bound(self, shape: Shape) -> float:
        return 1.0

    def encode_into(
        self, values: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        payload[:] = 0
        return self.payload_bound(values.shape)

    def decode_into(self, payload: Payload, out: Floats) -> None:
        out[:] = 0


def form(bits: float, error: float, ns_per_value: float = 0.0) -> Form:
    speed = {"encode_s_per_value": ns_per_value * 1e-9, "decode_s_per_value": ns_per_value * 1e-9}
    return Form(name=f"{bits:g} bits", codec=Sized(bits), error=error, **speed)


FORMS = (
    form(16, 0.002, 0.5),
    form(8, 0.007, 0.8),
    form(4, 0.1, 0.8),
    form(2, 0.34, 0.8),
    form(1, 0.6, 0.8),
    form(0.25, 0.9, 1.5),
)
