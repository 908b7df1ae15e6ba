"""Any bytes at all, and good payloads that were changed or cut: an error of ours, or a tensor; never anything else."""

from __future__ import annotations

import contextlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinwire.codec.base import Codec
from thinwire.codec.text import parse
from thinwire.errors import CodecError

CODECS = [
    parse(text)
    for text in (
        "plain",
        "top_k(k=5)",
        "top_k(homomorphic, k=0.1, block=64)",
        "top_k(rans(plain), k=0.5)",
        "random_k(k=0.1)",
        "rans(plain)",
        "rans(top_k(k=0.3))",
        "low_rank(low_rank_dim=2)",
        "homomorphic(bits=16)",
        "chain(top_k(k=3), rans(homomorphic), low_rank(low_rank_dim=1))",
        "warm_up(plain, top_k(k=3), num_encodes=0)",
        "per_tensor(low_rank(low_rank_dim=1), rans(plain), top_k(k=1), small_values=10)",
        "momentum(top_k(k=3))",
    )
]
SHAPES = [(0,), (1,), (9,), (12, 11), (150,)]


def decode_or_refuse(codec: Codec, payload: bytes, shape: tuple[int, ...]) -> None:
    with np.errstate(all="ignore"), contextlib.suppress(CodecError):
        codec.decode(np.frombuffer(payload, np.uint8), shape)
        codec.add_decoded(np.frombuffer(payload, np.uint8), np.zeros(shape, np.float32))


@pytest.mark.parametrize("codec", CODECS, ids=str)
@settings(max_examples=60, deadline=None)
@given(shape=st.sampled_from(SHAPES), data=st.data())
def test_any_bytes(codec: Codec, shape: tuple[int, ...], data: st.DataObject) -> None:
    decode_or_refuse(codec, data.draw(st.binary(max_size=codec.payload_bound(shape) + 10)), shape)


@pytest.mark.parametrize("codec", CODECS, ids=str)
@settings(max_examples=60, deadline=None)
@given(shape=st.sampled_from(SHAPES), data=st.data())
def test_a_payload_changed_or_cut(codec: Codec, shape: tuple[int, ...], data: st.DataObject) -> None:
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    payload = bytearray(codec.encode(values).payload.tobytes())
    for _ in range(data.draw(st.integers(0, 3))):
        if payload:
            payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    decode_or_refuse(codec, bytes(payload[: data.draw(st.integers(0, len(payload)))]), shape)


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_no_more_memory_than_announced(codec: Codec) -> None:
    """Lengths inside a payload are made as large as they go."""
    shape = (150,)
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    payload = codec.encode(values).payload
    for place in range(min(16, payload.size)):
        decode_or_refuse(codec, payload.tobytes(), shape)  # compiled, loaded
        broken = payload.copy()
        broken[place : place + 8] = 0xFF
        tracemalloc.start()
        decode_or_refuse(codec, broken.tobytes(), shape)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 200_000
