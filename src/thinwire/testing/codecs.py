"""What every codec must do, as checks that any implementation can run: ours, or one from elsewhere.

A check uses a codec only through ``thinwire.codec.base`` and raises ``AssertionError`` with what was expected and
what came. All randomness comes from the seed.

Not here: how good a codec is (``benchmarks``), and whether its bytes are those of another version (golden vectors).
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator
from math import isfinite, prod, sqrt

import numpy as np

from thinwire.codec.base import Array, Codec, Floats, Payload, Shape, State
from thinwire.errors import CodecError

SHAPES: tuple[Shape, ...] = ((0,), (1,), (7,), (257,), (33, 31), (3, 1, 5), (64, 64), (), (5000,))
_COUNTED = 2.0**-80  # a magnitude below which a codec may take values for zeros
_DRAWS = 256
_MOST_BYTES = 1 << 22


def check_codec(codec: Codec, shapes: Iterable[Shape] = SHAPES, seed: int = 0) -> None:
    """Run every check.

    Args:
        codec: the codec.
        shapes: of the tensors to try it with.
        seed: of the values and of the garbage.

    Raises:
        AssertionError: the codec does not do what ``thinwire.codec.base`` says.

    >>> from thinwire.codec.quantize import Quantize
    >>> check_codec(Quantize(bits=2, block=64))
    """
    for shape in shapes:
        for what, values in tensors(shape, seed):
            where = f"{codec}, {what} of the shape {shape}"
            check_encoding(codec, values, where)
            check_feedback(codec, values, where)
        check_conservation(codec, shape, seed)
        check_hostile_payloads(codec, shape, seed)
    check_unbiased(codec, seed)


def tensors(shape: Shape, seed: int) -> Iterator[tuple[str, Floats]]:
    """Finite tensors of one shape, each with its name."""
    random = np.random.default_rng(seed)

    def normal() -> Floats:
        return np.asarray(random.standard_normal(shape), np.float32).reshape(shape)

    yield "normal values", normal()
    yield "zeros", np.zeros(shape, np.float32)
    yield "equal values", np.full(shape, -2.5, np.float32)
    yield "values of many sizes", normal() * np.exp(3 * normal()).astype(np.float32)
    yield "subnormal values", normal() * np.float32(1e-40)
    yield "small values", normal() * np.float32(1e-18)
    yield "large values", np.clip(normal(), -3, 3) * np.float32(1e37)
    spike = np.zeros(shape, np.float32)
    spike.reshape(-1)[-1:] = 3
    yield "a spike", spike


def check_encoding(codec: Codec, values: Floats, where: str = "") -> None:
    """Size as announced, error within its bound, the same each time, and each form of decode the same."""
    shape = values.shape
    before = codec.initial_state(shape)
    kept_values, kept_state = values.copy(), _copied(before)
    payload, after = codec.encode(values, before, seed=5)
    assert np.array_equal(values, kept_values, equal_nan=True), f"{where}: encode changed its input"
    assert _same(before, kept_state), f"{where}: encode changed the state it was given"
    announced, bound = codec.payload_bytes(shape), codec.payload_bound(shape)
    assert payload.dtype == np.uint8, f"{where}: payloads are uint8, found {payload.dtype}"
    assert payload.size <= bound, f"{where}: at most {bound} bytes were announced, found {payload.size}"
    assert announced in (None, payload.size), (
        f"{where}: {announced} bytes were announced, found {payload.size}"
    )

    again = codec.encode(values, before, seed=5)
    assert np.array_equal(payload, again.payload), f"{where}: another payload the second time"
    assert _same(after, again.state), f"{where}: another state the second time"
    own = _copied(before)
    room = np.full(bound + 3, 0xA5, np.uint8)
    num_bytes = codec.encode_into(values, own, 5, room[:bound], own)
    assert np.array_equal(room[:num_bytes], payload), f"{where}: encode_into gives another payload"
    assert (room[bound:] == 0xA5).all(), f"{where}: encode_into wrote behind the payload"
    assert _same(own, after), f"{where}: another state when it is written over the one before"

    decoded = codec.decode(payload, shape)
    assert decoded.shape == shape, f"{where}: decoded to the shape {decoded.shape}"
    out = np.full(shape, 7, np.float32)
    codec.decode_into(payload, out)
    assert np.array_equal(out, decoded, equal_nan=True), f"{where}: decode_into depends on what out held"
    added = np.full(shape, 0.5, np.float32)
    codec.add_decoded(payload, added)
    assert np.array_equal(added, np.float32(0.5) + decoded, equal_nan=True), (
        f"{where}: add_decoded adds otherwise"
    )

    if codec.is_lossless:
        assert np.array_equal(decoded.view(np.uint32), values.view(np.uint32)), f"{where}: not lossless"
    if not values.any():
        assert not decoded.any(), f"{where}: zeros were decoded with an error"
    error, most = _norm(decoded.astype(np.float64) - values), codec.error_bound(shape)
    allowed = most * _norm(values) * (1 + 1e-5) + sqrt(max(1, values.size)) * _COUNTED
    assert most == float("inf") or error <= allowed, f"{where}: the error is {error}, the bound {allowed}"


def check_feedback(codec: Codec, values: Floats, where: str = "") -> None:
    """``encode_with_residual`` encodes the sum, and leaves what the payload lacks of it."""
    shape = values.shape
    residual = (values[..., ::-1] / 3).astype(np.float32) if values.ndim else (values / 3).astype(np.float32)
    residual = np.ascontiguousarray(residual).reshape(shape)
    wanted = values + residual
    before = codec.initial_state(shape)
    payload = np.empty(codec.payload_bound(shape), np.uint8)
    after = _copied(before)
    num_bytes = codec.encode_with_residual(values, residual, before, 9, payload, after)
    pure = codec.encode(wanted, before, seed=9)
    assert np.array_equal(payload[:num_bytes], pure.payload), f"{where}: with a residual, another payload"
    decoded = codec.decode(pure.payload, shape)
    assert np.isfinite(residual).all(), f"{where}: the residual of finite values is not finite"
    missing = _norm(wanted.astype(np.float64) - decoded - residual)
    largest = _norm(wanted) + _norm(decoded)
    assert missing <= 1e-5 * largest + sqrt(max(1, values.size)) * _COUNTED, (
        f"{where}: decoded + residual misses the sum by {missing} of {largest}"
    )


def check_conservation(codec: Codec, shape: Shape, seed: int, num_steps: int = 12) -> None:
    """Over some steps with error feedback, what was decoded plus the residual is what was put in."""
    random = np.random.default_rng(seed)
    state: State = codec.initial_state(shape)
    residual = np.zeros(shape, np.float32)
    put_in, got = np.zeros(shape), np.zeros(shape)
    sizes = 0.0
    for step in range(num_steps):
        values = np.asarray(random.standard_normal(shape), np.float32).reshape(shape)
        payload = np.empty(codec.payload_bound(shape), np.uint8)
        num_bytes = codec.encode_with_residual(values, residual, state, seed + step, payload, state)
        decoded = codec.decode(payload[:num_bytes], shape)
        put_in += values
        got += decoded
        sizes += _norm(values) + _norm(decoded) + _norm(residual)
    missing = _norm(put_in - got - residual)
    assert missing <= 1e-5 * sizes, (
        f"{codec}, {shape}: after {num_steps} steps {missing} of {sizes} went missing"
    )


def check_unbiased(codec: Codec, seed: int, size: int = 512) -> None:
    """The mean over many seeds is as near as it is for an unbiased codec, where the codec says that it is one."""
    if not codec.is_unbiased or codec.is_lossless:
        return
    values = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    errors = np.array(
        [
            codec.decode(codec.encode(values, seed=seed * _DRAWS + draw).payload, (size,)).astype(np.float64)
            - values
            for draw in range(_DRAWS)
        ]
    )
    squared = float(np.square(errors).sum(axis=1).mean())
    ratio = float(np.square(errors.mean(axis=0)).sum()) * _DRAWS / squared if squared else 0.0
    assert ratio < 2, (
        f"{codec}: the error of the mean of {_DRAWS} is {ratio:.2f} of what an unbiased codec has"
    )


def check_hostile_payloads(codec: Codec, shape: Shape, seed: int) -> None:
    """Any bytes give CodecError or a tensor, within memory in proportion to what was announced."""
    random = np.random.default_rng(seed)
    values = np.asarray(random.standard_normal(shape), np.float32).reshape(shape)
    good = codec.encode(values).payload
    for bad in _garbage(good, codec.payload_bound(shape), random):
        out = np.zeros(shape, np.float32)
        bad.flags.writeable = False
        tracemalloc.start()
        try:
            codec.decode_into(bad, out)
        except CodecError:
            pass
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        allowed = _MOST_BYTES + 64 * (4 * prod(shape) + codec.payload_bound(shape))
        assert peak <= allowed, f"{codec}, {shape}: decoding garbage took {peak} bytes, {allowed} are allowed"


def _garbage(good: Payload, bound: int, random: np.random.Generator) -> Iterator[Payload]:
    for size in {
        0,
        1,
        3,
        good.size // 2,
        good.size - 1,
        good.size,
        good.size + 1,
        bound,
        bound + 1,
        2 * bound + 64,
    }:
        if size >= 0:
            yield random.integers(0, 256, size, np.uint8)
            yield np.zeros(size, np.uint8)
            yield np.full(size, 255, np.uint8)
            yield np.resize(good, size) if good.size else np.zeros(size, np.uint8)
    for _ in range(32 if good.size else 0):
        flipped = good.copy()
        flipped[random.integers(good.size)] ^= np.uint8(1 << random.integers(8))
        yield flipped


def _copied(state: State) -> State:
    return tuple(array.copy() for array in state)


def _same(left: State, right: State) -> bool:
    return len(left) == len(right) and all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(left, right, strict=True)
    )


def _norm(values: Array) -> float:
    norm = float(np.linalg.norm(values.astype(np.float64).reshape(-1)))
    assert isfinite(norm), "not finite"
    return norm
