"""Every codec against the kit, and its bytes against those of the first version."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from thinwire.codec.base import Codec, Floats, Payload, Shape, State
from thinwire.codec.quantize import Quantize
from thinwire.codec.text import parse
from thinwire.testing import codecs as kit

OURS = [
    *(f"cast(to={to})" for to in ("float16", "bfloat16", "float8_e4m3", "float8_e5m2")),
    *(f"quantize(bits={bits})" for bits in (1, 2, 3, 4, 6, 8)),
    *(f"quantize(bits={bits}, block=64, rounding=stochastic)" for bits in (1, 2, 3, 4, 6, 8)),
    "quantize(bits=3, levels=uniform)",
    "quantize(bits=8, block=8, levels=lloyd_max)",
    "quantize(bits=2, scale=unbiased)",
    "rotate(quantize(bits=4, block=1024), width=1024)",
    "rotate(quantize(bits=1, block=4096, scale=unbiased))",
    "rotate(quantize(bits=2, rounding=stochastic), width=64)",
    "rotate(cast(to=float8_e4m3))",
    "sign",
    "error_feedback(quantize(bits=4))",
    "error_feedback(rotate(sign))",
    "error_feedback(error_feedback(cast(to=float16)))",
]
GOLDEN = Path(__file__).with_name("golden_payloads.json")


@pytest.mark.parametrize("text", OURS)
def test_it_does_what_codecs_must(text: str) -> None:
    kit.check_codec(parse(text))


def golden_payloads() -> dict[str, str]:
    """Payloads as hex digits, of 21 values that no generator of random numbers had a part in."""
    values = (np.arange(-1000, 1100, 100) ** 3 / 2.0**20).astype(np.float32)
    return {text: parse(text).encode(values, seed=3).payload.tobytes().hex() for text in OURS}


def test_the_bytes_are_those_of_the_first_version() -> None:
    assert golden_payloads() == json.loads(GOLDEN.read_text(encoding="utf-8"))


class _Wrong(Quantize):
    """Quantisation with a fault."""


class _Overruns(_Wrong):
    def payload_bytes(self, shape: Shape) -> int | None:
        return self.payload_bound(shape) + 1


class _LosesResiduals(_Wrong):
    def encode_with_residual(
        self, values: Floats, residual: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        num_bytes = super().encode_with_residual(values, residual, state, seed, payload, next_state)
        residual *= np.float32(0.999)
        return num_bytes


class _ClaimsToBeUnbiased(_Wrong):
    @property
    def is_unbiased(self) -> bool:
        return True


class _ClaimsPrecision(_Wrong):
    def error_bound(self, shape: Shape) -> float:
        return 1e-3


class _DiesOfGarbage(_Wrong):
    def decode_into(self, payload: Payload, out: Floats) -> None:
        super().decode_into(payload[: self.payload_bound(out.shape)], out[...] if payload[3] else out[:-1])


class _ForgetsItsSeed(_Wrong):
    def encode_into(
        self, values: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        num_bytes = super().encode_into(values, state, seed, payload, next_state)
        payload[:1] = np.random.default_rng().integers(256)
        return num_bytes


class _Adds(_Wrong):
    def decode_into(self, payload: Payload, out: Floats) -> None:
        self.add_decoded(payload, out)


@pytest.mark.parametrize("wrong", _Wrong.__subclasses__())
def test_the_kit_finds_faults(wrong: type[Codec]) -> None:
    with pytest.raises((AssertionError, IndexError)):
        kit.check_codec(wrong(bits=4), shapes=[(300,)])


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(golden_payloads(), indent=2) + "\n", encoding="utf-8")
