"""Small codecs that show the exchange what codecs may do: round, draw, remember, vary in length, and misbehave."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from math import prod

import numpy as np

from thinwire.codec.base import Array, Codec, Floats, Payload, Shape, State
from thinwire.codec.plain import Plain
from thinwire.errors import CodecError
from thinwire.runtime.coding import TRIAL_SIZE


@dataclass(frozen=True)
class Half(Codec):
    """Rounds to float16. Leaves whole numbers up to 2048 as they are."""

    def payload_bound(self, shape: Shape) -> int:
        return 2 * prod(shape)

    def error_bound(self, shape: Shape) -> float:
        return 2.0**-11

    def encode_into(
        self, values: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        payload[: 2 * values.size].view(np.float16)[:] = values.reshape(-1)
        return 2 * values.size

    def decode_into(self, payload: Payload, out: Floats) -> None:
        if payload.size != 2 * out.size:
            raise CodecError(f"{payload.size} bytes for {out.size} values of 2 bytes")
        out.reshape(-1)[:] = payload.view(np.float16)


@dataclass(frozen=True)
class Noisy(Plain):
    """Adds noise drawn from the seed: nothing that is drawn twice is the same."""

    scale: float = 0.1
    is_lossless = False

    def error_bound(self, shape: Shape) -> float:
        return float("inf")

    def encode_into(
        self, values: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        noise = np.random.default_rng(seed).standard_normal(values.size, np.float32)
        return super().encode_into(values + np.float32(self.scale) * noise, (), 0, payload, ())


@dataclass(frozen=True)
class Deflated(Codec):
    """Lossless, by zlib: the length depends on the values."""

    is_lossless = True

    def payload_bound(self, shape: Shape) -> int:
        return 4 * prod(shape) + 1024

    def payload_bytes(self, shape: Shape) -> int | None:
        return None

    def error_bound(self, shape: Shape) -> float:
        return 0.0

    def encode_into(
        self, values: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        deflated = np.frombuffer(zlib.compress(values.tobytes(), 1), np.uint8)
        payload[: deflated.size] = deflated
        return deflated.size

    def decode_into(self, payload: Payload, out: Floats) -> None:
        try:
            decompressor = zlib.decompressobj()
            inflated = decompressor.decompress(payload.tobytes(), out.nbytes)
        except zlib.error as error:
            raise CodecError(str(error)) from None
        if len(inflated) != out.nbytes:
            raise CodecError(f"{len(inflated)} bytes inflated for {out.size} values")
        out[:] = np.frombuffer(inflated, np.float32)


@dataclass(frozen=True)
class Counting(Half):
    """Remembers how often it encoded this segment, and adds that to every value."""

    def initial_state(self, shape: Shape) -> State:
        return (np.zeros(1, np.float32),)

    def encode_into(
        self, values: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        count: Array = state[0] + 1
        next_state[0][:] = count
        return super().encode_into(values + count, (), seed, payload, ())


@dataclass(frozen=True)
class Garbling(Half):
    """Calls itself the same on all ranks, so that nobody notices before one of them sends rubbish.

    Attributes:
        how: "" as it should be, "short" too few bytes, "long" too many, or "raise" while it encodes.
    """

    how: str = field(default="", repr=False)

    def __str__(self) -> str:
        return "garbling"

    def payload_bound(self, shape: Shape) -> int:
        return super().payload_bound(shape) + (8 if self.how == "long" else 0)

    def encode_into(
        self, values: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        num_bytes = super().encode_into(values, state, seed, payload, next_state)
        if values.size != TRIAL_SIZE:
            if self.how == "raise":
                raise ZeroDivisionError("nothing left")
            num_bytes += {"short": -1, "long": 8}.get(self.how, 0)
        return num_bytes
