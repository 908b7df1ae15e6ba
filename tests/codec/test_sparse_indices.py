"""Indices: the bits that the code's definition says, within 3 % of the least possible, and nothing else accepted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.codec.oracles import golomb, log2_choices
from thinwire.codec.base import Array
from thinwire.codec.sparse_indices import Kept, decode_indices, encode_indices, indices_bound
from thinwire.errors import CodecError

GOLDEN = "60dba2005f00"


def kept_of(size: int, block: int, k: int) -> Kept:
    return Kept(size, block, k, -(-k * (size % block) // block))


@st.composite
def choices(draw: st.DrawFn) -> tuple[Kept, Array]:
    block = draw(st.integers(1, 200))
    kept = kept_of(draw(st.integers(0, 700)), block, draw(st.integers(1, block)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    is_clustered = draw(st.booleans())
    own = []
    for start in range(0, kept.size, block):
        size = min(block, kept.size - start)
        count = kept.kept if size == block else kept.kept_in_rest
        chosen = np.arange(size - count, size) if is_clustered else rng.choice(size, count, replace=False)
        own.append(np.sort(chosen))
    positions = np.concatenate(own) if own else np.empty(0)
    return kept, positions.astype(np.uint32)


def encoded(positions: Array, kept: Kept) -> Array:
    out = np.full(indices_bound(kept), 0xAA, np.uint8)  # memory that was used before
    return out[: encode_indices(positions, kept, out)]


@settings(max_examples=200, deadline=None)
@given(choices())
def test_round_trip_within_the_bound(choice: tuple[Kept, Array]) -> None:
    kept, positions = choice
    payload = encoded(positions, kept)
    found, num_bytes = decode_indices(np.concatenate([payload, np.full(9, 0xFF, np.uint8)]), kept)
    assert (found == positions).all()
    assert num_bytes == payload.size


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 150), st.integers(0, 99), st.data())
def test_the_bits_are_golomb_s(size: int, seed: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, size))
    positions = np.sort(np.random.default_rng(seed).choice(size, k, replace=False)).astype(np.uint32)
    gaps = np.diff(positions.astype(int), prepend=-1) - 1
    bits = golomb(gaps.tolist(), max(1, size * 693 // (1000 * k)))
    assert (
        encoded(positions, kept_of(size, size, k)).tobytes() == np.packbits(bits, bitorder="little").tobytes()
    )


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.binary(max_size=60))
def test_any_bytes_are_positions_or_an_error(size: int, k: int, data: bytes) -> None:
    kept = kept_of(3 * size - 1, size, min(k, size))
    try:
        positions, num_bytes = decode_indices(np.frombuffer(data, np.uint8), kept)
    except CodecError:
        return
    assert encoded(positions, kept).tobytes() == data[:num_bytes]


def test_every_cut_is_an_error() -> None:
    kept = kept_of(5000, 1000, 37)
    rng = np.random.default_rng(0)
    positions = np.concatenate([np.sort(rng.choice(1000, 37, replace=False)) for _ in range(5)]).astype(
        np.uint32
    )
    payload = encoded(positions, kept)
    for length in range(payload.size):
        with pytest.raises(CodecError, match="ascending positions"):
            decode_indices(payload[:length], kept)


@pytest.mark.parametrize(
    ("block", "k"),
    [(4096, 64), (4096, 41), (4096, 512), (4096, 1024), (1 << 20, 1 << 13), (1 << 20, 1 << 10)],
)
def test_within_three_percent_of_the_number_of_choices(block: int, k: int) -> None:
    num_blocks = max(1, 2**18 // block)
    rng = np.random.default_rng(k)
    own = [np.sort(rng.choice(block, k, replace=False)) for _ in range(num_blocks)]
    num_bytes = encoded(np.concatenate(own).astype(np.uint32), kept_of(num_blocks * block, block, k)).size
    assert 8 * num_bytes <= 1.03 * num_blocks * log2_choices(block, k)


def test_golden() -> None:
    kept = kept_of(100, 50, 4)
    positions = np.array([0, 7, 30, 49, 3, 4, 5, 48], np.uint32)
    assert encoded(positions, kept).tobytes().hex() == GOLDEN
