"""How close codecs come to what is possible: index coding, entropy coding, low rank.

    python benchmarks/codec_limits.py > benchmarks/results/codec_limits.json

Each row is a ratio of what a codec spends to the least that could do, and the bound that it is held to. Fails if one
does not hold. Not here: times (``codec_stages``).
"""

from __future__ import annotations

import math
import sys

import msgspec
import numpy as np

from thinwire.codec.base import Codec, Floats, State
from thinwire.codec.homomorphic import Homomorphic
from thinwire.codec.low_rank import LowRank
from thinwire.codec.rans import compress
from thinwire.codec.top_k import TopK

NUM_VALUES = 1 << 20


class Row(msgspec.Struct, kw_only=True):
    """One comparison: ``figure`` in ``unit``, ``optimum`` in the same, and their ratio."""

    what: str
    unit: str
    figure: float
    optimum: float
    ratio: float
    bound: float


def row(what: str, unit: str, figure: float, optimum: float, bound: float) -> Row:
    rounded = [float(f"{x:.5g}") for x in (figure, optimum, figure / optimum)]
    return Row(what=what, unit=unit, figure=rounded[0], optimum=rounded[1], ratio=rounded[2], bound=bound)


def index_rows() -> list[Row]:
    """Bits an index, against log2 of the number of choices; the values' 32 bits are not counted."""
    values = np.random.default_rng(0).standard_normal(NUM_VALUES, dtype=np.float32)
    rows = []
    for codec in (TopK(64, block=4096), TopK(41, block=4096), TopK(512, block=4096), TopK(0.01), TopK(0.001)):
        kept = codec.kept(values.shape)
        bits = 8 * codec.encode(values).payload.size - 32 * kept.total
        num_blocks = kept.size // kept.block
        least = num_blocks * math.log2(math.comb(kept.block, kept.kept)) / kept.total
        rows.append(row(f"{codec} indices", "bits an index", bits / kept.total, least, 1.03))
    return rows


def low_bit(bits: int) -> np.ndarray:
    """Normal values on a uniform grid of 2^bits levels up to 3 standard deviations, packed into bytes."""
    values = np.random.default_rng(bits).standard_normal(8 * NUM_VALUES // bits)
    levels = np.clip(np.floor((values + 3) / 6 * 2**bits), 0, 2**bits - 1).astype(np.uint8)
    packed = np.zeros(levels.size * bits // 8, np.uint8)
    for place in range(8 // bits):
        packed |= levels[place :: 8 // bits] << (place * bits)
    return packed


def entropy_rows() -> list[Row]:
    """Bits a byte, against the empirical entropy of the bytes."""
    values = np.random.default_rng(0).standard_normal(NUM_VALUES, dtype=np.float32)
    sources = {f"levels of {bits} bits": low_bit(bits) for bits in (1, 2, 4, 8)}
    sources["homomorphic(bits=8) payload"] = Homomorphic(num_contributions=4).encode(values).payload
    sources["sparse signs, 3 % not zero"] = (np.abs(values) > 2.17).astype(np.uint8)
    rows = []
    for name, symbols in sources.items():
        counts = np.bincount(symbols, minlength=256)
        counts = counts[counts > 0]
        entropy = -float((counts * np.log2(counts / symbols.size)).sum()) / symbols.size
        spent = 8 * compress(symbols, np.empty(symbols.size + 1, np.uint8)) / symbols.size
        rows.append(row(f"rans of {name}", "bits a byte", spent, entropy, 1.01))
    return rows


def decaying(num_rows: int, num_columns: int, power: float) -> Floats:
    """A matrix whose i-th singular value is i to the minus ``power``."""
    rng = np.random.default_rng(0)
    rank = min(num_rows, num_columns)
    left = np.linalg.qr(rng.standard_normal((num_rows, rank)))[0]
    right = np.linalg.qr(rng.standard_normal((num_columns, rank)))[0]
    return ((left * np.arange(1, rank + 1) ** -power) @ right.T).astype(np.float32)


def low_rank_rows() -> list[Row]:
    """Relative error of one tensor encoded again and again, against what the singular values leave."""
    rows = []
    for power in (0.5, 1.0, 2.0):
        matrix = decaying(256, 512, power)
        singular = np.linalg.svd(matrix, compute_uv=False)
        for low_rank_dim in (1, 4, 16):
            codec, state = LowRank(low_rank_dim), None
            errors = [error_and_state(codec, matrix, state)]
            for _ in range(9):
                errors.append(error_and_state(codec, matrix, errors[-1][1]))
            length = float(np.linalg.norm(matrix))
            least = float(np.linalg.norm(singular[low_rank_dim:])) / length
            for count, bound in ((1, 1.2), (10, 1.02)):
                what = f"{codec}, singular values i^-{power:g}, encode {count}"
                rows.append(row(what, "relative error", errors[count - 1][0] / length, least, bound))
    return rows


def error_and_state(codec: Codec, matrix: Floats, state: State | None) -> tuple[float, State]:
    payload, after = codec.encode(matrix, state)
    return float(np.linalg.norm(codec.decode(payload, matrix.shape) - matrix)), after


def main() -> int:
    rows = [*index_rows(), *entropy_rows(), *low_rank_rows()]
    print(msgspec.json.format(msgspec.json.encode(rows), indent=1).decode())
    failed = [row for row in rows if row.ratio > row.bound]
    for bad in failed:
        print(f"{bad.what}: {bad.ratio} is above {bad.bound}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
